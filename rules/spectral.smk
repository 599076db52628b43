# Needs: networks, and examples for them. Makes: results/spectra/{examples}/{images}/{network}.h5, the frame bounds of their
# linear maps and the instability that the examples show; results/{table}.csv, the paper's Table 5, and its other forms.


rule measure_spectra:
    input:
        data=distorted_data,
        network=attacked_network,
        examples=spectral_shards,
    output:
        "results/spectra/{examples}/{images}/{variant}{network}.h5",
    log:
        "results/logs/spectra/{examples}/{images}/{variant}{network}.log",
    benchmark:
        "results/benchmarks/spectra/{examples}/{images}/{variant}{network}.tsv"
    priority: work(1)
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=grows(3000),
        runtime=grows(60),
    params:
        settings=spectra_settings,
        examples=in_a_command("examples"),
    message:
        "The frame bounds of {wildcards.variant}{wildcards.network}"
    shell:
        "exec python -P -m scripts.measure_spectra --data {input.data:q} --network {input.network:q}"
        " --examples {params.examples:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


rule tabulate_spectra:
    input:
        spectra=tables_spectra,
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
        "results/logs/tables/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tables/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(SPECTRAL_TABLES),
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
