# Needs: trained networks, and original or distorted images.
# Makes: results/evaluation/{table}.h5, which network misclassifies which image.


def evaluated_networks(wildcards):
    return [PATHS.network(wildcards.variant, name) for name in table_of(wildcards).networks]


def evaluate_originals_settings(wildcards):
    table = table_of(wildcards)
    execution = execution_settings(CONFIG.evaluation)
    return settings("evaluate_originals", rows=table.errors_on, columns=table.networks, **execution)


rule evaluate_originals:
    """Classify the undistorted images by a table's networks."""
    input:
        data="results/data.h5",
        splits="results/splits.h5",
        networks=evaluated_networks,
    output:
        "results/evaluation/{variant}{table}.h5",
    log:
        "results/logs/evaluate_originals/{variant}{table}.log",
    benchmark:
        "results/benchmarks/evaluate_originals/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("baseline") + tables_of("methods")),
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.evaluation)
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(20),
        gpu=gpu(CONFIG.evaluation),
    params:
        settings=evaluate_originals_settings,
    message:
        "Classifying the undistorted images of {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.evaluate_originals --data {input.data:q} --splits {input.splits:q}"
        " --networks {input.networks:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


def evaluated_shards(wildcards):
    return [shard for row in table_of(wildcards).shards(PATHS, wildcards.variant).values() for shard in row]


def evaluate_distorted_settings(wildcards):
    table = table_of(wildcards)
    rows = table.shards(PATHS, wildcards.variant)
    return settings(
        "evaluate_distorted",
        rows=[{"name": name, "shards": len(paths)} for name, paths in rows.items()],
        columns=table.networks,
        **execution_settings(CONFIG.evaluation),
    )


rule evaluate_distorted:
    """Classify the distorted images of a table's rows by its networks."""
    input:
        distorted=evaluated_shards,
        networks=evaluated_networks,
    output:
        "results/evaluation/{variant}{table}.h5",
    log:
        "results/logs/evaluate_distorted/{variant}{table}.log",
    benchmark:
        "results/benchmarks/evaluate_distorted/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("transfer")),
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.evaluation)
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(30),
        gpu=gpu(CONFIG.evaluation),
    params:
        settings=evaluate_distorted_settings,
        distorted=collapsed_input("distorted"),
    message:
        "Classifying the distorted images of {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.evaluate_distorted --distorted {params.distorted:q} --networks {input.networks:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"
