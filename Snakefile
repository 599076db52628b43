# The workflow: snakemake --cores 8 results/table4.csv
#
# The configuration is checked first; then each file under rules/ has one stage, from the data to the tables.

import copy
from pathlib import Path

# Where the project is, also as a module of another workflow.
PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
if not PROJECT.is_dir():
    raise SystemExit(
        f"Error: {PROJECT} is no folder, and the programs lie beside the Snakefile: clone the repository, and use that"
    )
GIVEN = copy.deepcopy(
    config
)  # by the command line, or by a workflow that includes this one: it counts before the file


configfile: PROJECT / "config/config.yaml"


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/start.smk"


onstart:
    refuse_unsafe_folder()


def all_results(wildcards):
    tables = [f"results/{table}.csv" for table in TABLES]
    figures = [
        f"results/{table}.png" for table in [*tables_of("transfer"), *UNITS_FIGURES, *tables_of("methods")]
    ]
    filters = [f"results/figures/filters_{name}.png" for name in AUTOENCODERS]
    return [
        *tables,
        *figures,
        *filters,
        "results/figures/training.png",
        "results/claims.md",
        "results/audit.html",
    ]


rule all:
    """Make all tables, figures and claims, and the page on which to ask where each number comes from."""
    input:
        all_results,
    localrule: True


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/attack.smk"
include: "rules/evaluate.smk"
include: "rules/tables.smk"
include: "rules/spectral.smk"
include: "rules/units.smk"
include: "rules/methods.smk"
include: "rules/figures.smk"
include: "rules/claims.smk"
include: "rules/audit.smk"
include: "rules/archive.smk"
include: "rules/upstream.smk"
