# Needs: distorted images and trained networks. Makes: results/figures/*.png.


rule plot_adversarial:
    input:
        data="results/data.h5",
        distorted=pictured_artifacts,
    output:
        report(
            "results/figures/adversarial_{table}.png",
            caption="../workflow/report/adversarial.rst",
            category="Figures",
            labels={"figure": "adversarial examples of {table}"},
        ),
    log:
        "results/logs/figures/adversarial_{table}.log",
    benchmark:
        "results/benchmarks/figures/adversarial_{table}.tsv"
    wildcard_constraints:
        table=any_of(TRANSFER_TABLES),
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=picture_settings,
    message:
        "Drawing the adversarial examples of {wildcards.table}"
    shell:
        "exec python -m scripts.plot_adversarial --data {input.data:q} --distorted {input.distorted:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule plot_training:
    input:
        networks=network_artifacts(CONFIG.networks),
    output:
        report(
            "results/figures/training.png",
            caption="../workflow/report/training.rst",
            category="Figures",
            labels={"figure": "training"},
        ),
    log:
        "results/logs/figures/training.log",
    benchmark:
        "results/benchmarks/figures/training.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=settings("plot_training", networks=list(CONFIG.networks)),
    message:
        "Drawing the training curves"
    shell:
        "exec python -m scripts.plot_training --networks {input.networks:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
