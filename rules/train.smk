# Needs: the data and its splits. Makes: results/networks/{network}.h5, weights and the record of every iteration.


rule train:
    input:
        data="results/data.h5",
        splits="results/splits.h5",
    output:
        "results/networks/{variant}{network}.h5",
    log:
        "results/logs/train/{variant}{network}.log",
    benchmark:
        "results/benchmarks/train/{variant}{network}.tsv"
    priority: work
    conda:
        "../envs/environment.yaml"
    threads: CONFIG.training.threads
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(120),
        gpu=gpu(CONFIG.training),
    params:
        settings=train_settings,
    message:
        "Training {wildcards.variant}{wildcards.network}"
    shell:
        "exec python -m scripts.train --data {input.data:q} --splits {input.splits:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
