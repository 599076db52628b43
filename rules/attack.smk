# Needs: the data and trained networks.
# Makes: results/adversarial/{images}/{network}.h5, the nearest adversarial examples by the paper's procedure;
# results/refined/, the same brought to local minima of the distortion; results/exact/, the minima for linear networks; results/amplified/, either at one standard
# deviation; results/noise/, Gaussian noise to compare them with.


rule attack:
    input:
        data="results/data.h5",
        network="results/networks/{network}.h5",
        targets=CONFIG.attack.given_targets or [],
    output:
        "results/adversarial/{images}/{network}.h5",
    log:
        "results/logs/attack/{images}/{network}.log",
    benchmark:
        "results/benchmarks/attack/{images}/{network}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: CONFIG.attack.threads
    resources:
        cpu=cpu,
        mem_mb=2000,
    params:
        settings=attack_settings,
    message:
        "Attacking {wildcards.network} on the {wildcards.images} images"
    shell:
        "exec python -m scripts.attack --data {input.data:q} --network {input.network:q} --targets {input.targets:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule refine:
    input:
        data="results/data.h5",
        network="results/networks/{network}.h5",
        adversarial="results/adversarial/{images}/{network}.h5",
    output:
        "results/refined/{images}/{network}.h5",
    log:
        "results/logs/refine/{images}/{network}.log",
    benchmark:
        "results/benchmarks/refine/{images}/{network}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: CONFIG.attack.threads
    resources:
        cpu=cpu,
        mem_mb=2000,
    params:
        settings=refine_settings,
    message:
        "Refining the adversarial examples for {wildcards.network} on the {wildcards.images} images"
    shell:
        "exec python -m scripts.refine --data {input.data:q} --network {input.network:q}"
        " --adversarial {input.adversarial:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


rule exact:
    input:
        data="results/data.h5",
        network="results/networks/{network}.h5",
        adversarial="results/adversarial/{images}/{network}.h5",
    output:
        "results/exact/{images}/{network}.h5",
    log:
        "results/logs/exact/{images}/{network}.log",
    benchmark:
        "results/benchmarks/exact/{images}/{network}.tsv"
    wildcard_constraints:
        network=any_of(LINEAR_NETWORKS),
    conda:
        "../envs/environment.yaml"
    threads: CONFIG.attack.threads
    resources:
        cpu=cpu,
        mem_mb=2000,
    params:
        settings=exact_settings,
    message:
        "The exact minima for {wildcards.network} on the {wildcards.images} images"
    shell:
        "exec python -m scripts.exact --data {input.data:q} --network {input.network:q}"
        " --adversarial {input.adversarial:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


rule amplify:
    input:
        data="results/data.h5",
        adversarial="results/{examples}/{images}/{network}.h5",
    output:
        "results/amplified/{examples}/{images}/{network}_{stddev}.h5",
    log:
        "results/logs/amplify/{examples}/{images}/{network}_{stddev}.log",
    benchmark:
        "results/benchmarks/amplify/{examples}/{images}/{network}_{stddev}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=amplify_settings,
    message:
        "Amplifying the distortions for {wildcards.network} to {wildcards.stddev}"
    shell:
        "exec python -m scripts.amplify --data {input.data:q} --adversarial {input.adversarial:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule noise:
    input:
        data="results/data.h5",
    output:
        "results/noise/{images}/{stddev}.h5",
    log:
        "results/logs/noise/{images}/{stddev}.log",
    benchmark:
        "results/benchmarks/noise/{images}/{stddev}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=noise_settings,
    message:
        "Adding Gaussian noise of stddev {wildcards.stddev} to the {wildcards.images} images"
    shell:
        "exec python -m scripts.noise --data {input.data:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
