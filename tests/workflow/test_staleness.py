"""Stale means stale: what reruns after a change, and nothing
else. Each case edits a throw-away copy of a finished run."""

import json
import re
import shutil

import pytest
from conftest import SMALL, copy_code, planned_rules, snakemake

from blindspots.steps.fingerprint import fingerprint

AFTER_TABLES = {"judge_claims", "export_provenance", "render_audit"}
AFTER_EXAMPLES = {
    "gather_shards",
    "evaluate_distorted",
    "tabulate_transfer",
    "plot_adversarial",
} | AFTER_TABLES
SPECTRA = {"measure_spectra", "tabulate_spectra"}
METHODS = {"tabulate_methods", "plot_methods"}
UNITS = {"inspect_units", "tabulate_units", "plot_units"}
AFTER_REFINEMENT = {"amplify_examples", "tabulate_baseline"} | SPECTRA | AFTER_EXAMPLES
AFTER_ATTACK = {"refine_examples", "find_exact_minima"} | AFTER_REFINEMENT
AFTER_TRAINING = (
    {"attack_network", "evaluate_originals", "plot_training", "plot_filters"} | METHODS | UNITS | AFTER_ATTACK
)
AFTER_PERTURBED = (
    {"attack_network", "refine_examples", "evaluate_originals", "tabulate_baseline", "plot_training"}
    | METHODS
    | SPECTRA
)
PERTURBED = {"train_perturbed"} | AFTER_PERTURBED | AFTER_EXAMPLES
AFTER_PICTURES = {"attack_network", "refine_examples", "add_noise"} | SPECTRA | UNITS | AFTER_EXAMPLES
EVERYTHING = {
    "fetch_images",
    "split_images",
    "add_noise",
    "train_network",
    "train_perturbed",
    "fetch_pictures",
    "load_network",
} | AFTER_TRAINING

KINDS = ("baseline", "transfer", "spectra", "units", "methods")

MODULES = {
    "blindspots/data/downloads.py": EVERYTHING,
    "blindspots/data/splits.py": {"split_images", "train_network", "train_perturbed"} | AFTER_TRAINING,
    "blindspots/training/convergence.py": {"train_network", "train_perturbed"} | AFTER_TRAINING,
    "blindspots/training/minibatches.py": {"train_network", "train_perturbed"} | AFTER_TRAINING,
    "blindspots/training/perturbed.py": PERTURBED,
    "blindspots/solvers/box_lbfgs.py": {"attack_network"} | PERTURBED | AFTER_ATTACK,
    "blindspots/attack/targets.py": {"attack_network"} | PERTURBED | AFTER_ATTACK,
    "blindspots/data/distortions.py": {"attack_network", "add_noise"} | AFTER_ATTACK,
    "blindspots/networks/evaluation.py": {"attack_network", "evaluate_originals", "tabulate_methods"}
    | AFTER_ATTACK,
    "blindspots/analysis/statistics.py": {f"tabulate_{kind}" for kind in KINDS}
    | {"plot_methods"}
    | AFTER_TABLES,
    "blindspots/report/figures.py": {
        "plot_adversarial",
        "plot_training",
        "plot_filters",
        "plot_units",
        "plot_methods",
    },
    "blindspots/data/pictures.py": {"fetch_pictures"} | AFTER_PICTURES,
    "scripts/load_network.py": {"load_network"} | AFTER_PICTURES - {"add_noise"},
    "blindspots/analysis/lipschitz.py": SPECTRA | AFTER_TABLES,
    "blindspots/analysis/units.py": UNITS | AFTER_TABLES,
    "blindspots/config/schema.py": set(),
    "blindspots/steps/step.py": EVERYTHING,
    "scripts/refine_examples.py": {"refine_examples"} | AFTER_REFINEMENT,
    "blindspots/attack/exact.py": {"find_exact_minima", "gather_shards", "tabulate_baseline"} | AFTER_TABLES,
    "blindspots/report/claims.py": {"judge_claims"},
    "blindspots/audit/page.py": {"render_audit"},
    "scripts/add_noise.py": {"add_noise"} | AFTER_EXAMPLES,
    "scripts/tabulate_baseline.py": {"tabulate_baseline"} | AFTER_TABLES,
    "scripts/tabulate_methods.py": {"tabulate_methods"} | AFTER_TABLES,
    "scripts/plot_methods.py": {"plot_methods"},
}

CHANGED = (
    "blindspots/data/downloads.py",
    "blindspots/training/perturbed.py",
    "blindspots/report/figures.py",
    "blindspots/config/schema.py",
)
CHANGED += ("blindspots/attack/exact.py", "scripts/load_network.py")

SETTINGS = {
    "splits.seed": (
        "seed: 0\n  parts",
        "seed: 5\n  parts",
        {"split_images", "train_network", "train_perturbed"} | AFTER_TRAINING,
    ),
    "networks.M2.seed": (
        "seed: 3",
        "seed: 4",
        {"train_network"}
        | AFTER_TRAINING - {"find_exact_minima", "plot_filters"} - METHODS - SPECTRA - UNITS,
    ),
    "networks.sigmoid_pools.perturbed": ("amplified: true # to", "amplified: false # to", PERTURBED),
    "training.history": (
        "  history: 100 # pairs",
        "  history: 11 # pairs",
        {"train_network"} | AFTER_TRAINING - METHODS - UNITS,  # no network in minibatches
    ),
    "attack.lbfgs.c_tolerance": (
        "c_tolerance: 1.0e-3",
        "c_tolerance: 2.0e-3",
        {"attack_network"} | AFTER_ATTACK,
    ),
    "attack.sqp.exploration": ("exploration: 100", "exploration: 0", {"refine_examples"} | AFTER_REFINEMENT),
    "pictures.attack": (
        "momentum: 0.8, competitors: 1",
        "momentum: 0.7, competitors: 1",
        {"refine_examples", "gather_shards", "tabulate_transfer"} | SPECTRA | AFTER_TABLES,
    ),
    "noise.clip": (
        "seed: 0\n  clip: false # to [0, 1]",
        "seed: 0\n  clip: true # to [0, 1]",
        {"add_noise"} | AFTER_EXAMPLES,
    ),
    "evaluation.device": (
        "evaluation:\n  device: auto",
        "evaluation:\n  device: cpu",
        {"evaluate_originals", *AFTER_EXAMPLES, "tabulate_baseline", "tabulate_methods", *UNITS}
        - {"gather_shards"},
    ),
    "training.threads": ("  threads: 4 # cores", "  threads: 3 # cores", set()),
    "data.sources": ("variable: BLINDSPOTS_DATA", "variable: ANOTHER", set()),
}


def edit(path, pattern, replacement):
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    path.write_text(changed)


def dry_run(clone, *arguments):
    return planned_rules(snakemake(clone, *SMALL, "-n", *arguments))


def test_a_finished_run_is_not_stale(clone):
    assert dry_run(clone) == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_behind_all_that_is_made_with_it(jobs, module):
    name = module.removesuffix(".py").replace("/", ".")
    stale, made_with = set(), {job.program for job in jobs if name in fingerprint(job.program).modules}
    before = None
    while before != stale:
        before = set(stale)
        for job in jobs:
            if job.program in made_with or any(
                path in stale for paths in job.inputs.values() for path in paths
            ):
                stale |= {*job.outputs}
    programs = {job.program for job in jobs if stale & {*job.outputs}}
    assert {program.removeprefix("scripts.") for program in programs} == MODULES[module]


@pytest.mark.parametrize("module", CHANGED)
def test_a_changed_module_reruns_the_rules_that_import_it(clone, module):
    path = clone / "workflow" / module
    path.write_text(path.read_text() + "\n_A_NEW_CONSTANT = 1\n")
    assert dry_run(clone) == MODULES[module]


@pytest.mark.parametrize("key", SETTINGS)
def test_a_changed_setting_reruns_the_rules_that_read_it(clone, key):
    before, after, expected = SETTINGS[key]
    edit(clone / "config/config.yaml", re.escape(before), after)
    assert dry_run(clone) == expected


@pytest.mark.parametrize(
    ("table", "before", "after", "expected"),
    [("table3", "0.062", "0.063", {"tabulate_baseline"}), ("adversarial_training", "<1.2", "<1.1", METHODS)],
)
def test_a_changed_number_of_the_paper_reruns_only_its_table_and_figure(
    clone, table, before, after, expected
):
    edit(clone / f"config/paper/{table}.csv", before, after)
    assert dry_run(clone) == expected | AFTER_TABLES


def test_another_pinned_version_reruns_the_rules_that_import_the_package(clone):
    edit(clone / "envs/constraints.txt", r"matplotlib==.*", "matplotlib==0.1")
    assert dry_run(clone) == MODULES["blindspots/report/figures.py"] | {"render_audit"}


def test_another_version_of_what_computes_nothing_reruns_nothing(clone):
    edit(clone / "envs/constraints.txt", r"grimp==.*", "grimp==0.1  # a comment")
    assert dry_run(clone) == set()


def test_comments_docstrings_and_formatting_rerun_nothing_but_the_page_that_shows_them(clone):
    for path in (clone / "workflow").rglob("*.py"):
        text = re.sub(r'^"""', '"""New words. ', path.read_text(), count=1)
        path.write_text(text.replace("\n\n\n", "\n\n\n\n# a comment\n") + "\n# the end\n")
    for path in (clone / "rules").glob("*.smk"):
        path.write_text("# a comment\n" + path.read_text())
    assert dry_run(clone) == {"render_audit"}


def test_another_template_makes_the_page_again(clone):
    edit(clone / "workflow/report/audit.html.j2", "Where every number", "Where each number")
    assert dry_run(clone) == {"render_audit"}


def test_a_bare_touch_reruns_nothing(clone):
    for path in [
        *clone.glob("results/**/*"),
        *clone.glob("workflow/**/*"),
        *clone.glob("config/**/*"),
        *clone.glob("rules/*"),
    ]:
        path.touch()
    assert dry_run(clone) == set()


def test_results_that_were_moved_to_a_new_clone_are_not_stale(finished, tmp_path):
    folder = copy_code(tmp_path / "clone")
    for path in folder.rglob("*"):
        path.touch()  # a new clone's files are younger than the results
    for name in ("results", ".snakemake/metadata"):
        shutil.copytree(finished / name, folder / name, copy_function=shutil.copy2)
    assert dry_run(folder) == set()
    assert {"add_noise", "evaluate_distorted"} <= dry_run(folder, "--config", "noise={seed: 99}")


def test_results_that_were_moved_to_another_place_beside_the_project_are_not_stale(finished, tmp_path):
    folder = tmp_path / "another/depth"
    for name in ("results", ".snakemake"):
        shutil.copytree(finished / name, folder / name, copy_function=shutil.copy2, symlinks=True)
    config = f"--configfile={finished / 'config/small.yaml'}"
    dry = snakemake(folder, "--dry-run", f"--snakefile={finished / 'Snakefile'}", config)
    assert planned_rules(dry) == set(), dry.stdout


def test_the_order_of_the_configurations_keys_changes_nothing(clone, config):
    def backwards(section):
        return (
            {key: backwards(section[key]) for key in reversed(section)}
            if isinstance(section, dict)
            else section
        )

    (clone / "backwards.json").write_text(json.dumps(backwards(config)))
    assert planned_rules(snakemake(clone, "--configfile=backwards.json", "-n")) == set()


def test_a_missing_artifact_is_made_again_for_a_missing_table(clone):
    for name in ("adversarial/test/M1/1-of-1.h5", "adversarial/test/M1.h5", "table3.csv"):
        (clone / "results" / name).unlink()
    assert dry_run(clone) == {"attack_network"} | AFTER_ATTACK - {"find_exact_minima"} - SPECTRA
