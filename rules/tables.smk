# Needs: evaluations and adversarial examples, and the paper's numbers under config/paper/.
# Makes: results/{table}.csv in the paper's layout, .md and .html for people, .cells.csv with every cell's source.


rule tabulate_baseline:
    input:
        originals=evaluations,
        adversarial=tables_examples("adversarial"),
        refined=tables_examples("refined"),
        exact=tables_examples("exact", LINEAR_NETWORKS),
        networks=tables_networks,
    output:
        layout="results/{variant}{table}.csv",
        markdown="results/{variant}{table}.md",
        page=report(
            "results/{variant}{table}.html",
            caption="../workflow/report/baseline.rst",
            category="Tables",
            labels={"table": "{variant}{table}"},
        ),
        cells="results/{variant}{table}.cells.csv",
    log:
        "results/logs/tables/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tables/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(BASELINE_TABLES),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=baseline_settings,
        paper=papers_numbers,
    message:
        "Making {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.tabulate_baseline --originals {input.originals:q} --adversarial {input.adversarial:q}"
        " --refined {input.refined:q} --exact {input.exact:q} --networks {input.networks:q} --paper {params.paper:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule tabulate_transfer:
    input:
        evaluation=evaluations,
        distorted=tables_rows,
        refined=tables_examples("refined"),
    output:
        layout="results/{variant}{table}.csv",
        markdown="results/{variant}{table}.md",
        page=report(
            "results/{variant}{table}.html",
            caption="../workflow/report/transfer.rst",
            category="Tables",
            labels={"table": "{variant}{table}"},
        ),
        cells="results/{variant}{table}.cells.csv",
    log:
        "results/logs/tables/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tables/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(TRANSFER_TABLES),
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=transfer_settings,
        paper=papers_numbers,
    message:
        "Making {wildcards.variant}{wildcards.table}"
    shell:
        "exec python -P -m scripts.tabulate_transfer --evaluation {input.evaluation:q} --distorted {input.distorted:q}"
        " --refined {input.refined:q} --paper {params.paper:q} --output {output:q} --settings {params.settings:q} --log {log:q}"
