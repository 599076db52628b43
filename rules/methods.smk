# Needs: networks that are trained in different ways, from several seeds, and their evaluation.
# Makes: results/{table}.csv, their errors side by side, and its other forms; results/{table}.png, their errors by epoch.


def methods_settings(wildcards):
    table = table_of(wildcards)
    return settings(
        "tabulate_methods",
        **replicated_settings(wildcards),
        columns=table.networks,
        errors_on=table.errors_on,
        baselines=table.baselines,
    )


rule tabulate_methods:
    """Make a table of the errors of networks that are trained in different ways (Section 4.2)."""
    input:
        unpack(table_inputs),
    output:
        layout="results/{variant}{table}.csv",
        markdown="results/{variant}{table}.md",
        page=report(
            "results/{variant}{table}.html",
            caption="../workflow/report/methods.rst",
            category="Tables",
            labels={"table": "{variant}{table}"},
        ),
        cells="results/{variant}{table}.cells.csv",
    log:
        "results/logs/tabulate_methods/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tabulate_methods/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("methods")),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=methods_settings,
        paper=papers_numbers,
    message:
        "Making {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.tabulate_methods --originals {input.originals:q} --networks {input.networks:q}"
        " --paper {params.paper:q} --output {output:q} --settings {params.settings:q} --log {log:q}"


def methods_networks(wildcards):
    return table_inputs(wildcards)["networks"]


def methods_figure_settings(wildcards):
    return settings("plot_methods", **replicated_settings(wildcards), networks=table_of(wildcards).networks)


rule plot_methods:
    """Draw the errors of networks that are trained in different ways, epoch by epoch."""
    input:
        networks=methods_networks,
    output:
        report(
            "results/{variant}{table}.png",
            caption="../workflow/report/methods_figure.rst",
            category="Figures",
            labels={"figure": "{variant}{table}, by epoch"},
        ),
    log:
        "results/logs/plot_methods/{variant}{table}.log",
    benchmark:
        "results/benchmarks/plot_methods/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("methods")),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=methods_figure_settings,
        paper=papers_numbers,
    message:
        "Drawing the errors of {wildcards.variant}{wildcards.table} by epoch"
    shell:
        "exec python -P -m scripts.plot_methods --networks {input.networks:q} --paper {params.paper:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
