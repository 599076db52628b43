# Needs: networks, and examples for them. Makes: results/spectra/{examples}/{images}/{network}.h5, the frame bounds of their
# linear maps and the instability that the examples show; results/{table}.csv, the paper's Table 5, and its other forms.


def spectral_shards(wildcards):
    artifact = PATHS.examples(wildcards.examples, wildcards.images, wildcards.variant, wildcards.network)
    return PATHS.shards(artifact, wildcards.variant, wildcards.images)


def spectra_settings(wildcards):
    return settings("measure_spectra", images=wildcards.images)


rule measure_spectra:
    """Compute the frame bounds of a network's linear maps, and the instability of its examples (Section 4.3)."""
    input:
        data=distorted_data,
        network=attacked_network,
        examples=spectral_shards,
    output:
        "results/spectra/{examples}/{images}/{variant}{network}.h5",
    log:
        "results/logs/measure_spectra/{examples}/{images}/{variant}{network}.log",
    benchmark:
        "results/benchmarks/measure_spectra/{examples}/{images}/{variant}{network}.tsv"
    priority: remaining_multiplications(1)
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(3000),
        runtime=scaled_by_attempt(60),
    params:
        settings=spectra_settings,
        examples=collapsed_input("examples"),
    message:
        "The frame bounds of {wildcards.variant}{wildcards.network}"
    shell:
        "exec python -P -m scripts.measure_spectra --data {input.data:q} --network {input.network:q}"
        " --examples {params.examples:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


def spectral_settings(wildcards):
    table = table_of(wildcards)
    return settings(
        "tabulate_spectra",
        table=wildcards.table,
        comparable=config_of(wildcards).compare_with_paper,
        paper=papers_hash(wildcards.table),
        networks=table.networks,
        examples=table.examples,
    )


rule tabulate_spectra:
    """Make a table of frame bounds (Table 5)."""
    input:
        unpack(table_inputs),
    output:
        layout="results/{variant}{table}.csv",
        markdown="results/{variant}{table}.md",
        page=report(
            "results/{variant}{table}.html",
            caption="../workflow/report/spectral.rst",
            category="Tables",
            labels={"table": "{variant}{table}"},
        ),
        cells="results/{variant}{table}.cells.csv",
    log:
        "results/logs/tabulate_spectra/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tabulate_spectra/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("spectral")),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=spectral_settings,
        paper=papers_numbers,
    message:
        "Making {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.tabulate_spectra --spectra {input.spectra:q} --paper {params.paper:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
