# Needs: the tables' cells. Makes: results/claims.md, what becomes of the paper's statements; results/ablations.*, the tables
# as one choice after the other is made otherwise.


rule judge_claims:
    """Judge each of the paper's statements by the tables."""
    input:
        cells=[f"results/{table}.cells.csv" for table in TABLES],
    output:
        report("results/claims.md", caption="../workflow/report/claims.rst", category="Claims"),
    log:
        "results/logs/judge_claims.log",
    benchmark:
        "results/benchmarks/judge_claims.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=500,
    params:
        settings=settings("judge_claims"),
    message:
        "Judging the paper's claims"
    shell:
        "exec python -P -m scripts.judge_claims --cells {input.cells:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


def ablated_cells(wildcards):
    ablations = CONFIG.ablations
    return [
        f"results/{ABLATIONS}/{name}/{table}.cells.csv"
        for name in ablations.names()
        for table in ablations.tables
    ]


rule compare_ablations:
    """Compare the tables as one choice after the other is made otherwise."""
    input:
        cells=ablated_cells,
    output:
        table="results/ablations.csv",
        markdown="results/ablations.md",
        picture=report("results/ablations.png", caption="../workflow/report/ablations.rst", category="Claims"),
    log:
        "results/logs/compare_ablations.log",
    benchmark:
        "results/benchmarks/compare_ablations.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=500,
    params:
        settings=settings(
            "compare_ablations", choices=CONFIG.ablations.names(), tables=CONFIG.ablations.tables
        ),
    message:
        "Comparing the ablations"
    shell:
        "exec python -P -m scripts.compare_ablations --cells {input.cells:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
