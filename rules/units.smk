# Needs: the data and networks. Makes: results/units/{name}.h5, the images that have most of the units and of random directions
# of a layer; results/units.csv and its other forms, how alike they are; the paper's Figures 1 to 4, some of them.


def inspected_data(wildcards):
    return PATHS.data(CONFIG.units.of[wildcards.section].images)


def inspected_network(wildcards):
    return PATHS.network("", CONFIG.units.of[wildcards.section].network)


def inspect_settings(wildcards):
    section = section_settings(CONFIG.units.of[wildcards.section], "network", "figures")
    return settings(
        "inspect_units", **section, seed=CONFIG.units.seed, **execution_settings(CONFIG.evaluation)
    )


rule inspect_units:
    """Find the images that activate units, and random directions, most (Section 3)."""
    input:
        data=inspected_data,
        network=inspected_network,
    output:
        "results/units/{section}.h5",
    log:
        "results/logs/inspect_units/{section}.log",
    benchmark:
        "results/benchmarks/inspect_units/{section}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=scaled_by_attempt(3000),
        runtime=scaled_by_attempt(60),
        gpu=gpu(CONFIG.evaluation),
    params:
        settings=inspect_settings,
    message:
        "Inspecting the units of {wildcards.section}"
    shell:
        "exec python -P -m scripts.inspect_units --data {input.data:q} --network {input.network:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


UNITS_ARTIFACTS = [f"results/units/{name}.h5" for name in sorted(CONFIG.units.of)]


def units_settings(wildcards):
    of = section_settings(CONFIG.units)["of"]
    return settings("tabulate_units", table="units", names=sorted(CONFIG.units.of), of=of)


rule tabulate_units:
    """Compare how alike the images are that activate a unit, or a random direction, most."""
    input:
        units=UNITS_ARTIFACTS,
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
        "results/logs/tabulate_units.log",
    benchmark:
        "results/benchmarks/tabulate_units.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=units_settings,
    message:
        "Comparing units with random directions"
    shell:
        "exec python -P -m scripts.tabulate_units --units {input.units:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


# Of which section a figure is, and whether of units or of directions.
UNITS_FIGURES = {
    figure: (name, kind)
    for name, section in CONFIG.units.of.items()
    for figure, kind in zip(section.figures, ("units", "directions"))
}


def figures_data(wildcards):
    name, _ = UNITS_FIGURES[wildcards.figure]
    return PATHS.data(CONFIG.units.of[name].images)


def figures_units(wildcards):
    name, _ = UNITS_FIGURES[wildcards.figure]
    return f"results/units/{name}.h5"


def units_figure_settings(wildcards):
    name, kind = UNITS_FIGURES[wildcards.figure]
    section = section_settings(CONFIG.units.of[name], "figures", "top")
    return settings("plot_units", **section, kind=kind, shown=CONFIG.units.shown, seed=CONFIG.units.seed)


rule plot_units:
    """Draw the images that activate units, or random directions, most (Figures 1 to 4)."""
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
        "results/logs/plot_units/{figure}.log",
    benchmark:
        "results/benchmarks/plot_units/{figure}.tsv"
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
