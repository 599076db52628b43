# Needs: the data and its splits. Makes: results/networks/{network}.h5, weights and the record of the way there; those of
# networks that come trained are taken over from their files.


PRETRAINED_NETWORKS = networks_where(lambda network: isinstance(network, Pretrained))
TRAINED_NETWORKS = networks_where(lambda network: not isinstance(network, Pretrained))
PERTURBED_NETWORKS = [name for name in TRAINED_NETWORKS if CONFIG.networks[name].training().get("perturbed")]


def training_settings(program):
    def of_network(wildcards):
        config = config_of(wildcards)
        network = fitting_network(config, wildcards.network)
        return settings(
            program,
            network=network.definition(),
            **network.training(),
            training=config.training.model_dump(mode="json", include=training_keys(network) - {"device"}),
            **execution_settings(config.training),
        )

    return of_network


def training_threads(wildcards):
    """One minibatch comes after the other; many images at once have parts."""
    return 1 if CONFIG.networks[wildcards.network].in_minibatches else threads_of(CONFIG.training)


rule train_network:
    """Train a network: by L-BFGS until convergence, or in minibatches."""
    input:
        data="results/data.h5",
        splits="results/splits.h5",
    output:
        "results/networks/{variant}{network}.h5",
    log:
        "results/logs/train_network/{variant}{network}.log",
    benchmark:
        "results/benchmarks/train_network/{variant}{network}.tsv"
    wildcard_constraints:
        network=any_of(name for name in TRAINED_NETWORKS if name not in PERTURBED_NETWORKS),
    priority: remaining_multiplications(3)
    conda:
        "../envs/environment.yaml"
    threads: training_threads
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(120),
        gpu=gpu(CONFIG.training),
    params:
        settings=training_settings("train_network"),
    message:
        "Training {wildcards.variant}{wildcards.network}"
    shell:
        "exec python -P -m scripts.train_network --data {input.data:q} --splits {input.splits:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


def perturbed_multiplications(wildcards):
    network = CONFIG.networks[wildcards.network]
    passes = network.perturbed.passes(CONFIG.data.train_size) * network.minibatches.epochs
    return remaining_multiplications(3)(wildcards) * passes


rule train_perturbed:
    """Train a network with perturbed outputs of its layers (Section 4.2)."""
    input:
        data="results/data.h5",
        splits="results/splits.h5",
    output:
        "results/networks/{variant}{network}.h5",
    log:
        "results/logs/train_perturbed/{variant}{network}.log",
    benchmark:
        "results/benchmarks/train_perturbed/{variant}{network}.tsv"
    wildcard_constraints:
        network=any_of(PERTURBED_NETWORKS),
    priority: perturbed_multiplications
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(120),
        gpu=gpu(CONFIG.training),
    params:
        settings=training_settings("train_perturbed"),
    message:
        "Training {wildcards.variant}{wildcards.network} with perturbed layers"
    shell:
        "exec python -P -m scripts.train_perturbed --data {input.data:q} --splits {input.splits:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


def load_settings(wildcards):
    network = fitting_network(CONFIG, wildcards.network)
    shape = CONFIG.pictures.image_shape
    return settings(
        "load_network",
        network=network.definition(),
        weights=section_settings(network.weights),
        image_shape=shape,
    )


rule load_network:
    """Take over a network that comes trained from its verified file."""
    output:
        "results/networks/{network}.h5",
    log:
        "results/logs/load_network/{network}.log",
    benchmark:
        "results/benchmarks/load_network/{network}.tsv"
    wildcard_constraints:
        network=any_of(PRETRAINED_NETWORKS),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=2000,
        disk_mb=1000,  # by default 50 GB, where a profile has any default resources
    params:
        settings=load_settings,
        sources=sources_of(lambda wildcards: CONFIG.networks[wildcards.network]),
    message:
        "Loading {wildcards.network}"
    shell:
        "exec python -P -m scripts.load_network --unrecorded {params.sources:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
