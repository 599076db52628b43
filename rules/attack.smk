# Needs: the data and trained networks.
# Makes: results/adversarial/{images}/{network}/{shard}.h5, the nearest adversarial examples by the paper's procedure, in
# shards of a set's images; results/refined/, the same brought to local minima of the distortion; results/exact/, the minima
# for linear networks; results/amplified/, either at one standard deviation; results/noise/, Gaussian noise to compare them
# with. And of each results/{kind}/{images}/{network}.h5, the shards as one, without their images.


rule attack:
    input:
        data=distorted_data,
        network=attacked_network,
        targets=given_targets,
    output:
        "results/adversarial/{images}/{variant}{network}/{shard}.h5",
    log:
        "results/logs/attack/{images}/{variant}{network}/{shard}.log",
    benchmark:
        "results/benchmarks/attack/{images}/{variant}{network}/{shard}.tsv"
    priority: work(2)
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.attack)
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(60),
        gpu=gpu(CONFIG.attack),
    params:
        settings=attack_settings,
    message:
        "Attacking {wildcards.variant}{wildcards.network} on the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.attack --data {input.data:q} --network {input.network:q} --targets {input.targets:q}"
        " --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


rule refine:
    input:
        data=distorted_data,
        network=attacked_network,
        adversarial="results/adversarial/{images}/{variant}{network}/{shard}.h5",
    output:
        "results/refined/{images}/{variant}{network}/{shard}.h5",
    log:
        "results/logs/refine/{images}/{variant}{network}/{shard}.log",
    benchmark:
        "results/benchmarks/refine/{images}/{variant}{network}/{shard}.tsv"
    priority: work(1)
    conda:
        "../envs/environment.yaml"
    threads: threads_of(CONFIG.attack)
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(60),
        gpu=gpu(CONFIG.attack),
    params:
        settings=refine_settings,
    message:
        "Refining the adversarial examples for {wildcards.network} on the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.refine --data {input.data:q} --network {input.network:q}"
        " --adversarial {input.adversarial:q} --output {output:q} --settings {params.settings:q} --threads {threads} --log {log:q}"


rule exact:
    input:
        data=distorted_data,
        network=attacked_network,
        adversarial="results/adversarial/{images}/{variant}{network}/{shard}.h5",
    output:
        "results/exact/{images}/{variant}{network}/{shard}.h5",
    log:
        "results/logs/exact/{images}/{variant}{network}/{shard}.log",
    benchmark:
        "results/benchmarks/exact/{images}/{variant}{network}/{shard}.tsv"
    wildcard_constraints:
        network=any_of(LINEAR_NETWORKS),
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=grows(2000),
        runtime=grows(60),
        gpu=gpu(CONFIG.attack),
    params:
        settings=exact_settings,
    message:
        "The exact minima for {wildcards.network} on the {wildcards.images} images, {wildcards.shard}"
    shell:
        "exec python -P -m scripts.exact --data {input.data:q} --network {input.network:q}"
        " --adversarial {input.adversarial:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


rule amplify:
    input:
        data=distorted_data,
        adversarial=amplified_shard,
    output:
        "results/amplified/{examples}/{images}/{variant}{network}_{stddev}/{shard}.h5",
    log:
        "results/logs/amplify/{examples}/{images}/{variant}{network}_{stddev}/{shard}.log",
    benchmark:
        "results/benchmarks/amplify/{examples}/{images}/{variant}{network}_{stddev}/{shard}.tsv"
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
        "exec python -P -m scripts.amplify --data {input.data:q} --adversarial {input.adversarial:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule noise:
    input:
        data=distorted_data,
    output:
        "results/noise/{images}/{variant}{stddev}/{shard}.h5",
    log:
        "results/logs/noise/{images}/{variant}{stddev}/{shard}.log",
    benchmark:
        "results/benchmarks/noise/{images}/{variant}{stddev}/{shard}.tsv"
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
        "exec python -P -m scripts.noise --data {input.data:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule gather:
    input:
        shards=gathered_shards,
    output:
        "results/{kind}/{images}/{variant}{name}.h5",
    log:
        "results/logs/gather/{kind}/{images}/{variant}{name}.log",
    benchmark:
        "results/benchmarks/gather/{kind}/{images}/{variant}{name}.tsv"
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
        settings=settings("gather"),
        shards=in_a_command("shards"),
    message:
        "Gathering {wildcards.kind}/{wildcards.images}/{wildcards.variant}{wildcards.name}"
    shell:
        "exec python -P -m scripts.gather --shards {params.shards:q} --output {output:q} --settings {params.settings:q} --log {log:q}"
