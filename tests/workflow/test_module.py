"""The workflow as a part of another one: as a module, with
or without a prefix, under other names, or included."""

import re
import subprocess
from hashlib import sha256

import pandas as pd
import pytest
from conftest import ROOT, SMALL, copy_code, planned_rules, snakemake

TARGETS = ("results/table3.csv", "results/table4.csv", "results/claims.md", "results/audit.html")


def importing(folder, *lines, rules="use rule * from blindspots as blind_*", before="", after=""):
    """Another workflow that takes this one as a module, in a folder."""
    statement = "\n    ".join(["module blindspots:", f"snakefile: {str(ROOT / 'Snakefile')!r}", *lines])
    (folder / "Snakefile").write_text(f"{before}\n{statement}\n{rules}\n{after}\n")


WITH_A_CONFIG = "config: config"
INCLUDED = f"include: {str(ROOT / 'Snakefile')!r}\n"


@pytest.mark.parametrize("how", ["module", "renamed", "included"])
def test_another_workflow_takes_up_a_finished_run_as_it_is(clone, how):
    if how == "included":
        (clone / "Snakefile").write_text(INCLUDED)
    else:
        names = " as blind_*" if how == "renamed" else ""
        importing(clone, WITH_A_CONFIG, rules=f"use rule * from blindspots{names}")
    dry = snakemake(clone, "--dry-run", *SMALL, *TARGETS)
    assert planned_rules(dry) == set(), dry.stdout


def test_one_key_of_configuration_is_all_that_a_module_needs(tmp_path):
    importing(tmp_path, "config: {'attack': {'sample': 100, 'images_per_job': 100}}")
    dry = snakemake(tmp_path, "--dry-run", "--printshellcmds", "results/table4.csv")
    assert dry.returncode == 0, dry.stderr
    assert '"size": 100' in dry.stdout
    assert f'"paper": "{paper_of("table4")}"' in dry.stdout  # verdicts have the paper's numbers
    assert "config/paper/table4.csv" in dry.stdout


@pytest.mark.parametrize("how", ["a file", "a key"])
def test_what_an_including_workflow_configures_counts(tmp_path, how):
    (tmp_path / "own.yaml").write_text("attack: {sample: 100}\n")
    given = {"a file": "configfile: 'own.yaml'\n", "a key": "config['attack'] = {'sample': 100}\n"}
    (tmp_path / "Snakefile").write_text(given[how] + INCLUDED)
    dry = snakemake(tmp_path, "--dry-run", "--printshellcmds", "results/table4.csv")
    assert dry.returncode == 0, dry.stderr
    assert '"size": 100' in dry.stdout
    assert '"size": "all"' not in dry.stdout


def test_an_archive_with_a_prefix_is_refused_in_one_line(tmp_path):
    importing(tmp_path, WITH_A_CONFIG, "prefix: 'elsewhere'")
    refused = snakemake(tmp_path, "--dry-run", *SMALL[:0], "elsewhere/results/archive.zip")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stdout + refused.stderr
    assert "as an archive runs again by itself, without a prefix" in refused.stderr


def paper_of(table):
    return sha256((ROOT / f"config/paper/{table}.csv").read_bytes()).hexdigest()


def test_without_any_configuration_a_module_has_its_own(tmp_path):
    importing(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("attack: of the other workflow\n")
    dry = snakemake(tmp_path, "--dry-run", "results/table4.csv")
    assert {"blind_attack_network", "blind_train_network"} <= planned_rules(dry)


def test_local_rules_stay_local_under_other_names_and_other_rules_are_left_alone(tmp_path):
    rule = "rule mine:\n    input: 'mine.txt'\n    output: 'results/mine'\n    shell: 'cp {input} {output}'"
    importing(tmp_path, before=rule)
    (tmp_path / "mine.txt").write_text("of the other workflow")
    run = snakemake(tmp_path, "results/mine")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "results/mine").read_text() == "of the other workflow"
    assert "upstream" not in run.stderr
    importing(tmp_path, before=rule, after="print('local:', *sorted(workflow._localrules))")
    local = re.search("^local: (.*)$", snakemake(tmp_path, "--list").stdout, re.MULTILINE)[1].split()
    assert {"blind_fetch_images", "blind_tabulate_transfer"} <= set(local)
    assert not {"mine", "fetch_images", "blind_attack_network"} & set(local)


def test_a_prefix_moves_all_results_and_the_audit_finds_them(tmp_path, mnist):
    small = (f"--configfile={ROOT / 'config/small.yaml'}",)
    settings = "attack={sample: 60, images_per_job: 30}"
    importing(tmp_path, WITH_A_CONFIG, "prefix: 'elsewhere'")
    table = "elsewhere/results/table4.csv"
    run = snakemake(tmp_path, *small, "--config", settings, "--", table)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"Snakefile", "elsewhere", ".snakemake"}
    cells = pd.read_csv(tmp_path / table.replace(".csv", ".cells.csv"))
    assert cells["artifact"].str.startswith("elsewhere/results/").all()
    checked = snakemake(tmp_path, *small, "--config", settings, "--", "blind_audit")
    assert checked.returncode == 0, (tmp_path / "elsewhere/results/logs/audit.log").read_text()
    refused = snakemake(tmp_path, "--dry-run", *small, "elsewhere/results/archive.zip")
    assert refused.returncode != 0
    assert "without a prefix: run this workflow by itself" in refused.stdout + refused.stderr


def test_a_snakefile_without_its_programs_beside_it_is_refused_in_a_line(tmp_path):
    repository = copy_code(tmp_path / "repository")
    for command in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"),
    ):
        subprocess.run(["git", *command], cwd=repository, check=True)
    snakefile = f"snakefile: gitfile({str(repository)!r}, path='Snakefile', ref='HEAD')"
    (tmp_path / "Snakefile").write_text(f"module blindspots:\n    {snakefile}\nuse rule * from blindspots\n")
    run = snakemake(tmp_path, "--dry-run", "results/table4.csv")
    assert run.returncode != 0
    assert "the programs lie beside the Snakefile: clone the repository" in run.stderr
    assert "Traceback" not in run.stderr
