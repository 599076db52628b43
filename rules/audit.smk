# Needs: the finished tables and the artifacts that they are made from. Makes: results/provenance.json, all that is known of
# each number, and results/audit.html, the same as a page to read. `audit` makes nothing; it checks every link of the run as
# it is, and fails if one is broken.


rule export_provenance:
    input:
        tables=[f"results/{table}.{kind}" for table in TABLES for kind in ("md", "cells.csv")],
        artifacts=tabled_artifacts,
    output:
        "results/provenance.json",
    log:
        "results/logs/provenance.log",
    benchmark:
        "results/benchmarks/provenance.tsv"
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


rule render_audit:
    input:
        provenance="results/provenance.json",
        data="results/data.h5",
        pictures="results/pictures.h5",
        splits="results/splits.h5",
        images=tabled_shards,
    output:
        "results/audit.html",
    log:
        "results/logs/audit_page.log",
    benchmark:
        "results/benchmarks/audit_page.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=page_settings,
        images=in_a_command("images"),
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
rule audit:
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
