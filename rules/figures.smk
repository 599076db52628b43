# Needs: distorted images and trained networks. Makes: results/{table}.png and
# results/figures/*.png.


def pictured_data(wildcards):
    return PATHS.data(CONFIG.tables[wildcards.table].image_set)


def pictured_rows(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [PATHS.row(table, "", row) for row in table.pictured_rows()]


def pictured_shards(wildcards):
    """Each row's, one row after another: all of photographs, but the first of others, of which there are thousands."""
    image_set = CONFIG.tables[wildcards.table].image_set
    count = None if image_set == PICTURES else 1
    return [
        shard
        for artifact in pictured_rows(wildcards)
        for shard in PATHS.shards(artifact, "", image_set)[:count]
    ]


def picture_settings(wildcards):
    table = CONFIG.tables[wildcards.table]
    rows = [{"name": row.name, "network": row.network} for row in table.pictured_rows()]
    return settings(
        "plot_adversarial", table=wildcards.table, rows=rows, columns=table.networks, images=table.image_set
    )


rule plot_adversarial:
    """Draw the adversarial examples of a table (Figures 5 to 7)."""
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
        "results/logs/plot_adversarial/{table}.log",
    benchmark:
        "results/benchmarks/plot_adversarial/{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("transfer")),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=picture_settings,
        shards=collapsed_input("shards"),
    message:
        "Drawing the adversarial examples of {wildcards.table}"
    shell:
        "exec python -P -m scripts.plot_adversarial --data {input.data:q} --gathered {input.gathered:q} --shards {params.shards:q}"
        " --evaluation {input.evaluation:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


DRAWN_NETWORKS = [
    network
    for network in sorted(TRAINED_NETWORKS)
    if any(network in table.networks for table in CONFIG.tables.values() if table.kind != "methods")
]


rule plot_training:
    """Draw how the loss of each network that a table has falls in training."""
    input:
        networks=[PATHS.network("", name) for name in DRAWN_NETWORKS],
    output:
        report(
            "results/figures/training.png",
            caption="../workflow/report/training.rst",
            category="Figures",
            labels={"figure": "training"},
        ),
    log:
        "results/logs/plot_training.log",
    benchmark:
        "results/benchmarks/plot_training.tsv"
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


AUTOENCODERS = [name for name in TRAINED_NETWORKS if CONFIG.networks[name].training().get("pretraining")]


rule plot_filters:
    """Draw the weights of a network's first layer."""
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
        "results/logs/plot_filters/{network}.log",
    benchmark:
        "results/benchmarks/plot_filters/{network}.tsv"
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
