# Needs: a finished run, as it is. Makes: nothing; it checks every link of it and fails if one is broken.


rule audit:
    log:
        "results/logs/audit.log",
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=2000,
    params:
        config=json.dumps(config),
    message:
        "Auditing what the finished run has made"
    shell:
        "exec python -m blindspots.audit --config {params.config:q} 2> {log:q}"
