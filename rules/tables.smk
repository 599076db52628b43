# Needs: evaluations and adversarial examples, and the paper's numbers under config/paper/.
# Makes: results/{table}.csv in the paper's layout, .md and .html for people, .cells.csv with every cell's source.


rule tabulate_baseline:
    input:
        originals="results/evaluation/{table}.h5",
        adversarial=adversarial_artifacts,
        refined=refined_artifacts,
        exact=exact_artifacts,
        networks=evaluated_networks,
        paper=papers_numbers,
    output:
        layout="results/{table}.csv",
        markdown="results/{table}.md",
        page=report(
            "results/{table}.html",
            caption="../workflow/report/baseline.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        cells="results/{table}.cells.csv",
    log:
        "results/logs/tables/{table}.log",
    benchmark:
        "results/benchmarks/tables/{table}.tsv"
    wildcard_constraints:
        table=any_of(BASELINE_TABLES),
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=baseline_settings,
    message:
        "Making {wildcards.table}"
    shell:
        "exec python -m scripts.tabulate_baseline --originals {input.originals:q} --adversarial {input.adversarial:q}"
        " --refined {input.refined:q} --exact {input.exact:q} --networks {input.networks:q} --paper {input.paper:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule tabulate_transfer:
    input:
        evaluation="results/evaluation/{table}.h5",
        distorted=distorted_artifacts,
        refined=refined_artifacts,
        paper=papers_numbers,
    output:
        layout="results/{table}.csv",
        markdown="results/{table}.md",
        page=report(
            "results/{table}.html",
            caption="../workflow/report/transfer.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        cells="results/{table}.cells.csv",
    log:
        "results/logs/tables/{table}.log",
    benchmark:
        "results/benchmarks/tables/{table}.tsv"
    wildcard_constraints:
        table=any_of(TRANSFER_TABLES),
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=transfer_settings,
    message:
        "Making {wildcards.table}"
    shell:
        "exec python -m scripts.tabulate_transfer --evaluation {input.evaluation:q} --distorted {input.distorted:q}"
        " --refined {input.refined:q} --paper {input.paper:q} --output {output:q} --settings {params.settings:q} --log {log:q}"
