# Needs: config. Makes: CONFIG, the checked configuration; VARIANTS of it; PATHS, where their artifacts lie; and what rules of
# several files name. What one rule alone names stands directly above that rule.

import fcntl
import json
import os
import re
import sys
from hashlib import sha256
from pathlib import Path

import yaml

WORKFLOW = str(PROJECT / "workflow")
sys.path.insert(0, WORKFLOW)

from blindspots.config.ablations import ABLATIONS
from blindspots.config.artifact_paths import ArtifactPaths, training_keys
from blindspots.config.errors import ConfigError
from blindspots.config.loading import check_written, validated, variants
from blindspots.config.merging import merged
from blindspots.config.networks import Pretrained
from blindspots.config.types import PICTURES
from blindspots.parallel.cores import available_cores
from blindspots.steps.fingerprint import fingerprint
from blindspots.steps.shards import collapsed

# Jobs run the programs beside this Snakefile with the interpreter that runs Snakemake.
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [WORKFLOW, os.getenv("PYTHONPATH")])),
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", os.defpath)]),
)

# A workflow that uses or includes this one may give no more than what differs.
DEFAULTS = yaml.safe_load((PROJECT / "config/config.yaml").read_text(encoding="utf-8"))
CONFIGURATION = merged(merged(DEFAULTS, config), GIVEN)

try:
    for path in (
        workflow.configfiles if Path(workflow.main_snakefile).resolve().parent == PROJECT.resolve() else []
    ):
        check_written(Path(path))
    CONFIG = validated(CONFIGURATION)
    VARIANTS = {"": CONFIG} | {f"{name}/": variant for name, variant in variants(CONFIGURATION).items()}
except ConfigError as error:
    sys.exit(f"Error in the configuration: {error}")
for given in {CONFIG.attack_on(images).given_targets for images in ("test", PICTURES)} - {None}:
    if not Path(given).is_file():
        sys.exit(f"Error in the configuration: attack.given_targets: {given} is no file in {Path.cwd()}")
    if set("{}") & set(given):
        sys.exit(
            f"Error in the configuration: attack.given_targets: {given} has braces, which Snakemake fills in: rename it"
        )

PATHS = ArtifactPaths(VARIANTS)
# Every table's name, tables before figures, whatever the order of the configuration's keys, on which no result depends.
TABLES = sorted(
    [*CONFIG.tables, *(["units"] if CONFIG.units.of else [])],
    key=lambda name: (not name.startswith("table"), name),
)


def tables_of(kind):
    return [name for name, table in CONFIG.tables.items() if table.kind == kind]


def networks_where(condition):
    """The names of the networks whose definition meets a condition."""
    return [name for name, network in CONFIG.networks.items() if condition(network)]


def fitting_network(config, name):
    """The definition of a network that fits its images; otherwise the workflow ends with one line."""
    try:
        config.check_network(name)
    except ConfigError as error:
        sys.exit(f"Error in the configuration: {error}")
    return config.networks[name]


def any_of(names):
    """A wildcard constraint; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    variant="|".join(map(re.escape, VARIANTS)),
    network="|".join(CONFIG.networks),
    images="train|test|pictures",
    examples="adversarial|refined",
    shard=r"\d+-of-\d+",
    section=any_of(CONFIG.units.of),
    stddev=r"[0-9.]+(e-[0-9]+)?",


# --- Inputs ---


def config_of(wildcards):
    return VARIANTS[wildcards.variant]


def distorted_data(wildcards):
    return PATHS.data(wildcards.images)


def attacked_network(wildcards):
    return PATHS.network(wildcards.variant, wildcards.network)


def collapsed_input(role):
    """A parameter: the files of an input, many shards as one word, since a command holds 128 KiB at most."""
    return lambda wildcards, input: collapsed(input[role])


# --- Settings ---


def settings(program, **named):
    """The one parameter of a rule: its named settings and the fingerprint of the code that it runs, as JSON."""
    named["code"] = fingerprint(f"scripts.{program}").sha256
    return json.dumps(named, sort_keys=True)


def section_settings(section, *left_out):
    return section.model_dump(mode="json", exclude={"device", "threads", *left_out})


def execution_settings(section):
    """Where a job runs can change the last bits of a result, so it is a setting. The number of threads changes none."""
    return {"device": section.device}


def sources_of(section):
    """Where files may come from. The SHA-256 of the files are among the settings, so another source changes nothing, and
    Snakemake compares no parameter that depends on the resources."""
    return lambda wildcards, resources: json.dumps(
        {"sources": section_settings(section(wildcards))["sources"]}
    )
