# Needs: the data and networks. Makes: results/units/{name}.h5, the images that have most of the units and of random directions
# of a layer; results/units.csv and its other forms, how alike they are; the paper's Figures 1 to 4, some of them.


rule inspect_units:
    input:
        data=inspected_data,
        network=inspected_network,
    output:
        "results/units/{section}.h5",
    log:
        "results/logs/units/{section}.log",
    benchmark:
        "results/benchmarks/units/{section}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=grows(3000),
        runtime=grows(60),
        gpu=gpu(CONFIG.evaluation),
    params:
        settings=inspect_settings,
    message:
        "Inspecting the units of {wildcards.section}"
    shell:
        "exec python -P -m scripts.inspect_units --data {input.data:q} --network {input.network:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule tabulate_units:
    input:
        units=[f"results/units/{name}.h5" for name in sorted(CONFIG.units.of)],
    output:
        layout="results/units.csv",
        markdown="results/units.md",
        page=report(
            "results/units.html",
            caption="../workflow/report/units.rst",
            category="Tables",
            labels={"table": "units"},
        ),
        cells="results/units.cells.csv",
    log:
        "results/logs/tables/units.log",
    benchmark:
        "results/benchmarks/tables/units.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=settings("tabulate_units", table="units", names=sorted(CONFIG.units.of), of=plain(CONFIG.units)["of"]),
    message:
        "Comparing units with random directions"
    shell:
        "exec python -P -m scripts.tabulate_units --units {input.units:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule plot_units:
    input:
        data=figures_data,
        units=figures_units,
    output:
        report(
            "results/{figure}.png",
            caption="../workflow/report/units_figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/logs/figures/{figure}.log",
    benchmark:
        "results/benchmarks/figures/{figure}.tsv"
    wildcard_constraints:
        figure=any_of(UNITS_FIGURES),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=units_figure_settings,
    message:
        "Drawing {wildcards.figure}"
    shell:
        "exec python -P -m scripts.plot_units --data {input.data:q} --units {input.units:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
