# Needs: trained networks, and original or distorted images.
# Makes: results/evaluation/{table}.h5, which network misclassifies which image.


rule evaluate_originals:
    input:
        data="results/data.h5",
        splits="results/splits.h5",
        networks=evaluated_networks,
    output:
        "results/evaluation/{variant}{table}.h5",
    log:
        "results/logs/evaluate/{variant}{table}.log",
    benchmark:
        "results/benchmarks/evaluate/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(BASELINE_TABLES + METHODS_TABLES),
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.evaluation)
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(20),
        gpu=gpu(CONFIG.evaluation),
    params:
        settings=evaluate_originals_settings,
    message:
        "Classifying the undistorted images of {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.evaluate_originals --data {input.data:q} --splits {input.splits:q}"
        " --networks {input.networks:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


rule evaluate_distorted:
    input:
        distorted=evaluated_shards,
        networks=evaluated_networks,
    output:
        "results/evaluation/{variant}{table}.h5",
    log:
        "results/logs/evaluate/{variant}{table}.log",
    benchmark:
        "results/benchmarks/evaluate/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(TRANSFER_TABLES),
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.evaluation)
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(30),
        gpu=gpu(CONFIG.evaluation),
    params:
        settings=evaluate_distorted_settings,
        distorted=in_a_command("distorted"),
    message:
        "Classifying the distorted images of {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.evaluate_distorted --distorted {params.distorted:q} --networks {input.networks:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"
