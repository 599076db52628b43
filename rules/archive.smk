# Needs: all that a run makes for people, and where its numbers come from. Makes: results/archive.zip, the run for
# deposition: an RO-Crate with what it takes to check it and to run it again. Of the artifacts it has the hashes.


rule archive:
    input:
        *rules.all.input,
        *[f"results/{table}.{kind}" for table in TABLES for kind in ("md", "html", "cells.csv")],
        "results/provenance.json",
    output:
        "results/archive.zip",
    log:
        "results/logs/archive.log",
    benchmark:
        "results/benchmarks/archive.tsv"
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
        "exec python -P -m scripts.archive --results {input:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
