# Needs: the data and trained networks.
# Makes: results/adversarial/{images}/{network}/{shard}.h5, the nearest adversarial examples by the paper's procedure, in
# shards of a set's images; results/refined/, the same brought to local minima of the distortion; results/exact/, the minima
# for linear networks; results/amplified/, either at one standard deviation; results/noise/, Gaussian noise to compare them
# with. And of each results/{kind}/{images}/{network}.h5, the shards as one, without their images.


def attack_of(wildcards):
    return config_of(wildcards).attack_against(wildcards.network, wildcards.images)


def shard_settings(wildcards):
    """Which images a job distorts, the same for every network and for noise."""
    attack = config_of(wildcards).attack_on(wildcards.images)
    return {
        "images": wildcards.images,
        "sample": {"size": attack.sample, "seed": attack.seed},
        "shard": wildcards.shard,
    }


def search_settings(wildcards):
    attack = attack_of(wildcards)
    return {
        "margin": attack.margin,
        "precision": attack.precision,
        "batch": attack.batch,
        **execution_settings(attack),
    }


def given_targets(wildcards):
    path = config_of(wildcards).attack_on(wildcards.images).given_targets
    return [local(path)] if path else []  # where its owner has it, whatever prefix a module's results have


def attack_settings(wildcards):
    attack = attack_of(wildcards)
    return settings(
        "attack_network",
        **shard_settings(wildcards),
        classes=(CONFIG.pictures if wildcards.images == PICTURES else CONFIG.data).classes,
        target=attack.target,
        correct_only=attack.correct_only,
        seed=attack.seed,
        lbfgs=section_settings(attack.lbfgs),
        **search_settings(wildcards),
    )


rule attack_network:
    """Find the nearest adversarial examples by the paper's procedure (Section 4.1), a shard of the images a job."""
    input:
        data=distorted_data,
        network=attacked_network,
        targets=given_targets,
    output:
        "results/adversarial/{images}/{variant}{network}/{shard}.h5",
    log:
        "results/logs/attack_network/{images}/{variant}{network}/{shard}.log",
    benchmark:
        "results/benchmarks/attack_network/{images}/{variant}{network}/{shard}.tsv"
    priority: remaining_multiplications(2)
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.attack)
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(60),
        gpu=gpu(CONFIG.attack),
    params:
        settings=attack_settings,
    message:
        "Attacking {wildcards.variant}{wildcards.network} on the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.attack_network --data {input.data:q} --network {input.network:q} --targets {input.targets:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


def refine_settings(wildcards):
    sqp = section_settings(attack_of(wildcards).sqp)
    return settings("refine_examples", images=wildcards.images, sqp=sqp, **search_settings(wildcards))


rule refine_examples:
    """Bring adversarial examples to local minima of the distortion."""
    input:
        data=distorted_data,
        network=attacked_network,
        adversarial="results/adversarial/{images}/{variant}{network}/{shard}.h5",
    output:
        "results/refined/{images}/{variant}{network}/{shard}.h5",
    log:
        "results/logs/refine_examples/{images}/{variant}{network}/{shard}.log",
    benchmark:
        "results/benchmarks/refine_examples/{images}/{variant}{network}/{shard}.tsv"
    priority: remaining_multiplications(1)
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.attack)
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(60),
        gpu=gpu(CONFIG.attack),
    params:
        settings=refine_settings,
    message:
        "Refining the adversarial examples for {wildcards.network} on the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.refine_examples --data {input.data:q} --network {input.network:q}"
        " --adversarial {input.adversarial:q} --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


def exact_settings(wildcards):
    attack = attack_of(wildcards)
    return settings(
        "find_exact_minima", images=wildcards.images, margin=attack.margin, **execution_settings(attack)
    )


rule find_exact_minima:
    """Compute the exact minima of the distortion for a linear network."""
    input:
        data=distorted_data,
        network=attacked_network,
        adversarial="results/adversarial/{images}/{variant}{network}/{shard}.h5",
    output:
        "results/exact/{images}/{variant}{network}/{shard}.h5",
    log:
        "results/logs/find_exact_minima/{images}/{variant}{network}/{shard}.log",
    benchmark:
        "results/benchmarks/find_exact_minima/{images}/{variant}{network}/{shard}.tsv"
    wildcard_constraints:
        network=any_of(PATHS.linear(CONFIG.networks)),
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(2000),
        runtime=scaled_by_attempt(60),
        gpu=gpu(CONFIG.attack),
    params:
        settings=exact_settings,
    message:
        "The exact minima for {wildcards.network} on the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.find_exact_minima --data {input.data:q} --network {input.network:q}"
        " --adversarial {input.adversarial:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


def amplified_shard(wildcards):
    examples = PATHS.examples(wildcards.examples, wildcards.images, wildcards.variant, wildcards.network)
    return f"{examples.removesuffix('.h5')}/{wildcards.shard}.h5"


def amplify_settings(wildcards):
    clip = config_of(wildcards).amplification.clip
    return settings("amplify_examples", images=wildcards.images, stddev=float(wildcards.stddev), clip=clip)


rule amplify_examples:
    """Amplify the distortions to one standard deviation."""
    input:
        data=distorted_data,
        adversarial=amplified_shard,
    output:
        "results/amplified/{examples}/{images}/{variant}{network}_{stddev}/{shard}.h5",
    log:
        "results/logs/amplify_examples/{examples}/{images}/{variant}{network}_{stddev}/{shard}.log",
    benchmark:
        "results/benchmarks/amplify_examples/{examples}/{images}/{variant}{network}_{stddev}/{shard}.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=amplify_settings,
    message:
        "Amplifying the distortions for {wildcards.network} to {wildcards.stddev}, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.amplify_examples --data {input.data:q} --adversarial {input.adversarial:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


def noise_settings(wildcards):
    noise = section_settings(config_of(wildcards).noise)
    return settings("add_noise", **shard_settings(wildcards), stddev=float(wildcards.stddev), **noise)


rule add_noise:
    """Add Gaussian noise to the images."""
    input:
        data=distorted_data,
    output:
        "results/noise/{images}/{variant}{stddev}/{shard}.h5",
    log:
        "results/logs/add_noise/{images}/{variant}{stddev}/{shard}.log",
    benchmark:
        "results/benchmarks/add_noise/{images}/{variant}{stddev}/{shard}.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=noise_settings,
    message:
        "Adding Gaussian noise of stddev {wildcards.stddev} to the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.add_noise --data {input.data:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


def gathered_shards(wildcards):
    artifact = "results/{kind}/{images}/{variant}{name}.h5".format(**wildcards)
    return PATHS.shards(artifact, wildcards.variant, wildcards.images)


rule gather_shards:
    """Gather the shards of a set into one artifact without the images."""
    input:
        shards=gathered_shards,
    output:
        "results/{kind}/{images}/{variant}{name}.h5",
    log:
        "results/logs/gather_shards/{kind}/{images}/{variant}{name}.log",
    benchmark:
        "results/benchmarks/gather_shards/{kind}/{images}/{variant}{name}.tsv"
    wildcard_constraints:
        kind="adversarial|refined|exact|noise|amplified/[a-z]+",
        name=r"[\w.-]+",
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=500,
    params:
        settings=settings("gather_shards"),
        shards=collapsed_input("shards"),
    message:
        "Gathering {wildcards.kind}/{wildcards.images}/{wildcards.variant}{wildcards.name}"
    shell:
        "exec python -P -m scripts.gather_shards --shards {params.shards:q} --output {output:q} --settings {params.settings:q} --log {log:q}"
