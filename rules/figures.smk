# Needs: distorted images and trained networks. Makes: results/{table}.png and
# results/figures/*.png.


rule plot_adversarial:
    input:
        data=pictured_data,
        gathered=pictured_rows,
        shards=pictured_shards,
        evaluation="results/evaluation/{table}.h5",
    output:
        report(
            "results/{table}.png",
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
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=picture_settings,
        shards=in_a_command("shards"),
    message:
        "Drawing the adversarial examples of {wildcards.table}"
    shell:
        "exec python -P -m scripts.plot_adversarial --data {input.data:q} --gathered {input.gathered:q} --shards {params.shards:q}"
        " --evaluation {input.evaluation:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


rule plot_training:
    input:
        networks=[network_artifact("", name) for name in DRAWN_NETWORKS],
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
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=settings("plot_training", networks=DRAWN_NETWORKS),
    message:
        "Drawing the training curves"
    shell:
        "exec python -P -m scripts.plot_training --networks {input.networks:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule plot_filters:
    input:
        network="results/networks/{network}.h5",
    output:
        report(
            "results/figures/filters_{network}.png",
            caption="../workflow/report/filters.rst",
            category="Figures",
            labels={"figure": "first layer of {network}"},
        ),
    log:
        "results/logs/figures/filters_{network}.log",
    benchmark:
        "results/benchmarks/figures/filters_{network}.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=settings("plot_filters"),
    message:
        "Drawing the first layer of {wildcards.network}"
    shell:
        "exec python -P -m scripts.plot_filters --network {input.network:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
