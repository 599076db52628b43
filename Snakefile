# The workflow: snakemake --cores 8 results/table4.csv
#
# The configuration is checked first; then each file under rules/ has one stage, from the data to the tables.

import os


configfile: os.path.join(workflow.basedir, "config", "config.yaml")


include: "rules/common.smk"


# What is not worth a cluster job of its own.
localrules:
    all,
    fetch,
    fetch_pictures,
    load,
    split,
    amplify,
    noise,
    gather,
    tabulate_baseline,
    tabulate_transfer,
    tabulate_spectra,
    tabulate_units,
    tabulate_methods,
    plot_methods,
    plot_units,
    plot_adversarial,
    plot_training,
    plot_filters,
    judge_claims,
    compare_ablations,
    export_provenance,
    render_audit,
    audit,
    archive,


onstart:
    start()


rule all:
    input:
        [f"results/{table}.csv" for table in TABLES],
        [f"results/{table}.png" for table in [*TRANSFER_TABLES, *UNITS_FIGURES, *METHODS_TABLES]],
        [f"results/figures/filters_{name}.png" for name in AUTOENCODERS],
        "results/figures/training.png",
        "results/claims.md",
        "results/audit.html",


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
