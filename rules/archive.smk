# Needs: all that a run makes for people, and where its numbers come from. Makes: results/archive.zip, the run for
# deposition: an RO-Crate with what it takes to check it and to run it again. Of the artifacts it has the hashes.


# What of the project an archive has. Tests and benchmarks are there because the README and docs speak of them.
ARCHIVED_FILES = (
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "Snakefile",
    "pyproject.toml",
)
ARCHIVED_FOLDERS = ("benchmarks", "config", "docs", "envs", "profiles", "rules", "tests", "workflow")
MADE = r"(^|/)(\.|__pycache__/|[^/]+\.egg-info/)"


def archived_project():
    """The project's own files, without what is made from them, and their SHA-256: another content makes another archive."""
    found = [
        path for name in ARCHIVED_FOLDERS for path in PROJECT.joinpath(name).rglob("*") if path.is_file()
    ]
    names = [*ARCHIVED_FILES, *(path.relative_to(PROJECT).as_posix() for path in found)]
    return {
        name: sha256((PROJECT / name).read_bytes()).hexdigest() for name in names if not re.search(MADE, name)
    }


def archived_results(wildcards):
    forms = [f"results/{table}.{kind}" for table in TABLES for kind in ("md", "html", "cells.csv")]
    return [*all_results(wildcards), *forms, "results/provenance.json"]


def archive_settings(wildcards):
    if rules.archive_run.output[0] != "results/archive.zip":
        sys.exit(
            f"Error: {rules.archive_run.output[0]} is not made, as an archive runs again by itself, without a prefix: "
            "run this workflow by itself in a --directory, and archive that"
        )
    return settings("archive_run", project=archived_project(), config=CONFIGURATION)


rule archive_run:
    """Pack the run for deposition, as an RO-Crate with what it takes to check it and to run it again."""
    input:
        archived_results,
    output:
        "results/archive.zip",
    log:
        "results/logs/archive_run.log",
    benchmark:
        "results/benchmarks/archive_run.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=500,
    params:
        settings=archive_settings,
    message:
        "Archiving the run"
    shell:
        "exec python -P -m scripts.archive_run --results {input:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
