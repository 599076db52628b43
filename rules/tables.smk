# Needs: evaluations and adversarial examples, and the paper's numbers under config/paper/.
# Makes: results/{table}.csv in the paper's layout, .md and .html for people, .cells.csv with every cell's source. The
# functions at the top are of all kinds of tables.


def table_of(wildcards):
    return config_of(wildcards).tables[wildcards.table]


def table_inputs(wildcards):
    """What a table's rule reads, by role."""
    refuse_forgotten_results()
    return table_of(wildcards).inputs(PATHS, wildcards.variant, wildcards.table)


# The project's own files are parameters and no inputs: in a moved run, or in another clone, they have other paths and times,
# which change nothing. Their hashes are among the settings. (Snakemake compares no parameter that depends on `input`.)


def papers_file(table):
    return PROJECT / "config/paper" / f"{table}.csv"


def papers_numbers(wildcards, input):
    """The paper's numbers of a table, where it has that table."""
    path = papers_file(wildcards.table)
    return [os.path.relpath(path)] if path.exists() else []


def papers_hash(table):
    return sha256(path.read_bytes()).hexdigest() if (path := papers_file(table)).exists() else None


def replicated_settings(wildcards):
    """The settings that all tables over several seeds have."""
    table = table_of(wildcards)
    return {
        "table": wildcards.table,
        "replicates": len(PATHS.replicates(wildcards.variant, table)),
        "comparable": config_of(wildcards).compare_with_paper,
        "paper": papers_hash(wildcards.table),
    }


def attacked_settings(wildcards):
    """The settings that tables of adversarial examples have."""
    table = table_of(wildcards)
    attack = config_of(wildcards).attack_on(table.image_set)
    return replicated_settings(wildcards) | {
        "columns": table.networks,
        "attack": {
            "target": attack.target,
            "norm": attack.lbfgs.norm,
            "sample": attack.sample,
            "set": table.image_set,
        },
    }


def baseline_settings(wildcards):
    config, table = config_of(wildcards), table_of(wildcards)
    return settings(
        "tabulate_baseline",
        **attacked_settings(wildcards),
        linear=PATHS.linear(table.networks),
        errors_on=table.errors_on,
        refined_to={
            name: config.attack_against(name, table.image_set).sqp.tolerance for name in table.networks
        },
    )


rule tabulate_baseline:
    """Make a table of errors and minimum distortions (Tables 1 and 3)."""
    input:
        unpack(table_inputs),
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
        "results/logs/tabulate_baseline/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tabulate_baseline/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("baseline")),
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


def transfer_settings(wildcards):
    table = table_of(wildcards)
    return settings(
        "tabulate_transfer",
        **attacked_settings(wildcards),
        examples=table.examples,
        rows=[row._asdict() for row in table.rows()],
        measured=[row.name for row in table.measured_rows()],
        average_distortion=table.average_distortion,
    )


rule tabulate_transfer:
    """Make a table of the errors on distorted images (Tables 2 and 4)."""
    input:
        unpack(table_inputs),
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
        "results/logs/tabulate_transfer/{variant}{table}.log",
    benchmark:
        "results/benchmarks/tabulate_transfer/{variant}{table}.tsv"
    wildcard_constraints:
        table=any_of(tables_of("transfer")),
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
