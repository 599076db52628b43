# Needs: the data and its splits. Makes: results/networks/{network}.h5, weights and the record of the way there; those of
# networks that come trained are taken over from their files.


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
    wildcard_constraints:
        network=any_of(name for name in TRAINED_NETWORKS if name not in PERTURBED_NETWORKS),
    priority: work(3)
    conda:
        "../envs/environment.yaml"
    threads: training_threads
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(120),
        gpu=gpu(CONFIG.training),
    params:
        settings=train_settings("train"),
    message:
        "Training {wildcards.variant}{wildcards.network}"
    shell:
        "exec python -P -m scripts.train --data {input.data:q} --splits {input.splits:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


rule train_perturbed:
    input:
        data="results/data.h5",
        splits="results/splits.h5",
    output:
        "results/networks/{variant}{network}.h5",
    log:
        "results/logs/train/{variant}{network}.log",
    benchmark:
        "results/benchmarks/train/{variant}{network}.tsv"
    wildcard_constraints:
        network=any_of(PERTURBED_NETWORKS),
    priority: perturbed_work
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(120),
        gpu=gpu(CONFIG.training),
    params:
        settings=train_settings("train_perturbed"),
    message:
        "Training {wildcards.variant}{wildcards.network} with perturbed layers"
    shell:
        "exec python -P -m scripts.train_perturbed --data {input.data:q} --splits {input.splits:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule load:
    output:
        "results/networks/{network}.h5",
    log:
        "results/logs/load/{network}.log",
    benchmark:
        "results/benchmarks/load/{network}.tsv"
    wildcard_constraints:
        network=any_of(PRETRAINED_NETWORKS),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=2000,
        disk_mb=1000,  # by itself 50 GB, where a profile has any default resources
    params:
        settings=load_settings,
        sources=sources_of(lambda wildcards: CONFIG.networks[wildcards.network]),
    message:
        "Loading {wildcards.network}"
    shell:
        "exec python -P -m scripts.load --unrecorded {params.sources:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
