# Needs: config. Makes: CONFIG, the checked configuration; the settings and the inputs that the rules name.

import json
import re
import sys
from pathlib import Path

WORKFLOW = os.path.join(workflow.basedir, "workflow")
sys.path.insert(0, WORKFLOW)

from blindspots.config import BaselineTable, ConfigError, TransferTable, validated
from blindspots.fingerprint import fingerprint

# Jobs run the programs beside this Snakefile with the interpreter that runs Snakemake.
os.environ.update(
    PYTHONPATH=WORKFLOW,
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", os.defpath)]),
)

try:
    CONFIG = validated(config)
except ConfigError as error:
    sys.exit(f"Error in the configuration: {error}")

BASELINE_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, BaselineTable)]
TRANSFER_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, TransferTable)]


wildcard_constraints:
    network="|".join(CONFIG.networks),
    images="train|test",
    stddev=r"[0-9.]+(e-[0-9]+)?",


def settings(program, **named):
    """The one parameter of a rule: its named settings and the fingerprint of the code that it runs, as JSON."""
    named["code"] = fingerprint(f"scripts.{program}").sha256
    return json.dumps(named, sort_keys=True)


def plain(section, *left_out):
    return section.model_dump(mode="json", exclude={"device", "threads", *left_out})


def cpu(wildcards, threads):
    """What a job takes of the machine's cores, however many --cores says (see profiles/default)."""
    return threads


def any_of(names):
    """A wildcard constraint; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def train_settings(wildcards):
    network = CONFIG.networks[wildcards.network]
    return settings(
        "train",
        network=plain(network, "trained_on", "weight_decay", "seed"),
        trained_on=network.trained_on,
        seed=network.seed,
        training={"weight_decay": network.weight_decay, **plain(CONFIG.training)},
        device=CONFIG.training.device,
    )


def attack_settings(wildcards):
    return settings(
        "attack",
        images=wildcards.images,
        classes=CONFIG.data.classes,
        target=CONFIG.attack.target,
        sample=CONFIG.attack.sample,
        seed=CONFIG.attack.seed,
        search=plain(CONFIG.attack, "target", "given_targets", "sample", "seed"),
        device=CONFIG.attack.device,
    )


def amplify_settings(wildcards):
    stddev = float(wildcards.stddev)
    return settings("amplify", images=wildcards.images, stddev=stddev, clip=CONFIG.amplification.clip)


def noise_settings(wildcards):
    return settings(
        "noise",
        images=wildcards.images,
        stddev=float(wildcards.stddev),
        seed=CONFIG.noise.seed,
        clip=CONFIG.noise.clip,
        sample=CONFIG.attack.sample,
        sample_seed=CONFIG.attack.seed,
    )


def network_artifacts(names):
    return [f"results/networks/{name}.h5" for name in names]


def adversarial_artifacts(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [f"results/adversarial/{table.distorted}/{name}.h5" for name in table.networks]


def evaluated_networks(wildcards):
    return network_artifacts(CONFIG.tables[wildcards.table].networks)


def evaluated_parts():
    """Every part of the data on which some table gives an error, once."""
    return sorted({part for table in BASELINE_TABLES for part in CONFIG.tables[table].errors_on})


def baseline_networks():
    return sorted({name for table in BASELINE_TABLES for name in CONFIG.tables[table].networks})


def transfer_rows(table):
    """The rows of a transfer table in order: name, network, stddev, and the artifact with the distorted images."""
    images = CONFIG.tables[table].distorted
    rows = []
    for block in CONFIG.tables[table].blocks:
        for network in CONFIG.tables[table].networks:
            if block.amplified_to is None:
                path = f"results/adversarial/{images}/{network}.h5"
                rows.append(dict(name=network, network=network, stddev=None, path=path))
            else:
                path = f"results/amplified/{images}/{network}_{block.amplified_to:g}.h5"
                rows.append(dict(name=f"{network}_amplified", network=network, stddev=block.amplified_to, path=path))
        for stddev in block.noise:
            path = f"results/noise/{images}/{stddev:g}.h5"
            rows.append(dict(name=f"noise_{stddev:g}", network=None, stddev=stddev, path=path))
    return rows


def distorted_artifacts(wildcards):
    return [row["path"] for row in transfer_rows(wildcards.table)]


def evaluate_distorted_settings(wildcards):
    return settings(
        "evaluate_distorted",
        rows=[row["name"] for row in transfer_rows(wildcards.table)],
        columns=CONFIG.tables[wildcards.table].networks,
        device=CONFIG.evaluation.device,
    )


def baseline_settings(wildcards):
    table = CONFIG.tables[wildcards.table]
    return settings(
        "tabulate_baseline",
        table=wildcards.table,
        networks=table.networks,
        errors_on=table.errors_on,
        comparable=CONFIG.compare_with_paper,
    )


def transfer_settings(wildcards):
    rows = [{key: row[key] for key in ("name", "network", "stddev")} for row in transfer_rows(wildcards.table)]
    return settings(
        "tabulate_transfer",
        table=wildcards.table,
        rows=rows,
        columns=CONFIG.tables[wildcards.table].networks,
        comparable=CONFIG.compare_with_paper,
    )


def papers_numbers(wildcards):
    """The paper's numbers of a table, where it has that table."""
    path = Path(workflow.basedir, "config", "paper", f"{wildcards.table}.csv")
    return [os.path.relpath(path)] if path.exists() else []


def pictured_rows(table):
    """The unamplified rows and the last noise of a transfer table, for the figure."""
    rows = transfer_rows(table)
    first = [row for row in rows if row["network"] and row["stddev"] is None]
    return first + [row for row in rows if row["network"] is None][-1:]


def pictured_artifacts(wildcards):
    return [row["path"] for row in pictured_rows(wildcards.table)]


def picture_settings(wildcards):
    rows = [row["name"] for row in pictured_rows(wildcards.table)]
    return settings("plot_adversarial", rows=rows, images=CONFIG.tables[wildcards.table].distorted)
