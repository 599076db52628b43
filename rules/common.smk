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
    PYTHONPATH=os.pathsep.join(filter(None, [WORKFLOW, os.getenv("PYTHONPATH")])),
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", os.defpath)]),
)

try:
    CONFIG = validated(config)
except ConfigError as error:
    sys.exit(f"Error in the configuration: {error}")
if CONFIG.attack.given_targets and not Path(CONFIG.attack.given_targets).is_file():
    sys.exit(f"Error in the configuration: attack.given_targets: {CONFIG.attack.given_targets} is no file in {Path.cwd()}")

BASELINE_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, BaselineTable)]
LINEAR_NETWORKS = [name for name, network in CONFIG.networks.items() if network.linear]
TRANSFER_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, TransferTable)]


wildcard_constraints:
    network="|".join(CONFIG.networks),
    images="train|test",
    examples="adversarial|refined",
    stddev=r"[0-9.]+(e-[0-9]+)?",


def settings(program, **named):
    """The one parameter of a rule: its named settings and the fingerprint of the code that it runs, as JSON."""
    named["code"] = fingerprint(f"scripts.{program}").sha256
    return json.dumps(named, sort_keys=True)


def plain(section, *left_out):
    return section.model_dump(mode="json", exclude={"device", "threads", *left_out})


def machine(section):
    """Where a stage runs. Both can change the last bits of a result, so both are settings."""
    return {"device": section.device, "threads": section.threads}


def cpu(wildcards, threads):
    """What a job takes of the machine's cores, however many --cores says (see profiles/default)."""
    return threads


def any_of(names):
    """A wildcard constraint; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def data_sources(wildcards, resources):
    """Where the files may come from. Snakemake compares no function of the resources with the last run's, and need not:
    the files' SHA-256 are among the settings, so that a source changes nothing."""
    return json.dumps({"sources": plain(CONFIG.data)["sources"]})


def train_settings(wildcards):
    network = CONFIG.networks[wildcards.network]
    return settings(
        "train",
        network=plain(network, "trained_on", "weight_decay", "seed"),
        trained_on=network.trained_on,
        seed=network.seed,
        training={"weight_decay": network.weight_decay, **plain(CONFIG.training)},
        **machine(CONFIG.training),
    )


def connection_weights(wildcards):
    """The size of a network, by which the longest training starts first."""
    height, width = CONFIG.data.image_shape
    return CONFIG.networks[wildcards.network].connection_weights(height * width)


def sample():
    """Which images of a set are distorted, the same by attack and by noise."""
    return {"size": CONFIG.attack.sample, "seed": CONFIG.attack.seed}


def attack_settings(wildcards):
    return settings(
        "attack",
        images=wildcards.images,
        classes=CONFIG.data.classes,
        target=CONFIG.attack.target,
        sample=sample(),
        seed=CONFIG.attack.seed,
        lbfgs=plain(CONFIG.attack.lbfgs),
        **in_batches(),
        **machine(CONFIG.attack),
    )


def refine_settings(wildcards):
    return settings(
        "refine",
        images=wildcards.images,
        sqp=plain(CONFIG.attack.sqp),
        **in_batches(),
        **machine(CONFIG.attack),
    )


def exact_settings(wildcards):
    return settings("exact", images=wildcards.images, margin=CONFIG.attack.margin, **machine(CONFIG.attack))


def in_batches():
    return {"margin": CONFIG.attack.margin, "batch": CONFIG.attack.batch}


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
        sample=sample(),
    )


def network_artifacts(names):
    return [f"results/networks/{name}.h5" for name in names]


def adversarial_artifacts(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [f"results/adversarial/{table.distorted}/{name}.h5" for name in table.networks]


def refined_artifacts(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [f"results/refined/{table.distorted}/{name}.h5" for name in table.networks]


def exact_artifacts(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [f"results/exact/{table.distorted}/{name}.h5" for name in table.networks if name in LINEAR_NETWORKS]


def evaluated_networks(wildcards):
    return network_artifacts(CONFIG.tables[wildcards.table].networks)


def evaluate_originals_settings(wildcards):
    table = CONFIG.tables[wildcards.table]
    return settings("evaluate_originals", rows=table.errors_on, columns=table.networks, **machine(CONFIG.evaluation))


def distorted_artifacts(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [row.artifact(table.examples, table.distorted) for row in table.rows()]


def evaluate_distorted_settings(wildcards):
    return settings(
        "evaluate_distorted",
        rows=[row.name for row in CONFIG.tables[wildcards.table].rows()],
        columns=CONFIG.tables[wildcards.table].networks,
        **machine(CONFIG.evaluation),
    )


def baseline_settings(wildcards):
    table = CONFIG.tables[wildcards.table]
    return settings(
        "tabulate_baseline",
        table=wildcards.table,
        networks=table.networks,
        linear=[name for name in table.networks if name in LINEAR_NETWORKS],
        errors_on=table.errors_on,
        comparable=CONFIG.compare_with_paper,
    )


def transfer_settings(wildcards):
    table = CONFIG.tables[wildcards.table]
    return settings(
        "tabulate_transfer",
        table=wildcards.table,
        examples=table.examples,
        rows=[row._asdict() for row in table.rows()],
        columns=table.networks,
        average_distortion=table.average_distortion,
        comparable=CONFIG.compare_with_paper,
    )


def papers_numbers(wildcards):
    """The paper's numbers of a table, where it has that table."""
    path = Path(workflow.basedir, "config", "paper", f"{wildcards.table}.csv")
    return [os.path.relpath(path)] if path.exists() else []


def pictured_rows(table):
    """The unamplified rows and the last noise of a transfer table, for the figure."""
    rows = CONFIG.tables[table].rows()
    noise = [row for row in rows if row.network is None]
    return [row for row in rows if row.network and row.stddev is None] + noise[-1:]


def pictured_artifacts(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [row.artifact(table.examples, table.distorted) for row in pictured_rows(wildcards.table)]


def picture_settings(wildcards):
    rows = [row.name for row in pictured_rows(wildcards.table)]
    return settings("plot_adversarial", rows=rows, images=CONFIG.tables[wildcards.table].distorted)
