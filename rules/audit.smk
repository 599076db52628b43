# Needs: the finished tables and the artifacts that they are made from. Makes: results/provenance.json, all that is known of
# each number, and results/audit.html, the same as a page to read. `audit` makes nothing; it checks every link of the run as
# it is, and fails if one is broken.


def tabled_artifacts(wildcards):
    """The artifacts that the tables are made from. Their records lead to all others."""
    inputs = [table.inputs(PATHS, "", name) for name, table in sorted(CONFIG.tables.items())]
    found = [path for roles in inputs for paths in roles.values() for path in paths]
    return list(dict.fromkeys([*found, *UNITS_ARTIFACTS]))


rule export_provenance:
    """Export all that is known of where each number comes from."""
    input:
        tables=[f"results/{table}.{kind}" for table in TABLES for kind in ("md", "cells.csv")],
        artifacts=tabled_artifacts,
    output:
        "results/provenance.json",
    log:
        "results/logs/export_provenance.log",
    benchmark:
        "results/benchmarks/export_provenance.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=settings("export_provenance", tables=TABLES),
    message:
        "Exporting where every number comes from"
    shell:
        "exec python -P -m scripts.export_provenance --tables {input.tables:q} --artifacts {input.artifacts:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


PAGE = Path(WORKFLOW, "report", "audit.html.j2")


def tabled_shards(wildcards):
    """The images behind the tables' rates and distortions, of the first seeds."""
    shards = [table.shards(PATHS, "") for _, table in sorted(CONFIG.tables.items())]
    return list(dict.fromkeys(path for groups in shards for paths in groups.values() for path in paths))


def module_files():
    """The source files of the programs that make artifacts, under whatever names a module has their rules."""
    makers = [
        made.shellcmd for made in workflow.rules if any(output.endswith(".h5") for output in made.output)
    ]
    programs = {
        found[1]
        for shellcmd in makers
        if (found := re.match(r"exec python -P -m (scripts\.\w+) ", shellcmd or ""))
    }
    modules = sorted({module for program in programs for module in fingerprint(program).modules})
    places = [Path(WORKFLOW, *module.split(".")) for module in modules]
    return [place / "__init__.py" if place.is_dir() else place.with_suffix(".py") for place in places]


def shown_modules(wildcards, input):
    return [os.path.relpath(path) for path in module_files()]


def pages_template(wildcards, input):
    return os.path.relpath(PAGE)


def page_settings(wildcards):
    """The page shows source files, so that here their comments count too."""
    shown = [sha256(path.read_bytes()).hexdigest() for path in (PAGE, *module_files())]
    return settings("render_audit", shown=sha256("".join(shown).encode()).hexdigest())


rule render_audit:
    """Render a page on which a reader asks each number where it comes from."""
    input:
        provenance="results/provenance.json",
        data="results/data.h5",
        pictures="results/pictures.h5",
        splits="results/splits.h5",
        images=tabled_shards,
    output:
        "results/audit.html",
    log:
        "results/logs/render_audit.log",
    benchmark:
        "results/benchmarks/render_audit.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=page_settings,
        images=collapsed_input("images"),
        template=pages_template,
        modules=shown_modules,
    message:
        "Rendering the page where every number comes from"
    shell:
        "exec python -P -m scripts.render_audit --provenance {input.provenance:q} --data {input.data:q} --pictures {input.pictures:q}"
        " --splits {input.splits:q}"
        " --images {params.images:q} --template {params.template:q} --modules {params.modules:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


# Without an environment of its own, as it asks Snakemake for the plan.
def configuration(wildcards):
    return json.dumps(CONFIGURATION)


rule audit:
    """Check every link from the raw data to the numbers of the finished run."""
    log:
        "results/logs/audit.log",
    localrule: True
    resources:
        cpu=cpu,
        mem_mb=2000,
    params:
        config=configuration,
        results=os.path.dirname(rules.export_provenance.output[0]),
    message:
        "Auditing what the finished run has made"
    shell:
        "exec python -P -m blindspots.audit --results {params.results:q} --config {params.config:q} 2> {log:q}"
