"""Whatever happens to a run, a kill at any moment among it: the same command again gives the tables
of an undisturbed run, what files there are are whole, and the message says what happened."""

import os
import random
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import SMALL, TABLES, Running, command, copy_code, planned_rules, snakemake

from blindspots.steps import artifacts, step

# What is deleted before the run, so that the rule has to work again.
OUTPUTS = {
    "train_network": [
        "results/networks/M1.h5",
        "results/adversarial/test/M1.h5",
        "results/evaluation/table3.h5",
    ],
    "attack_network": ["results/adversarial/test/M1_prime/1-of-1.h5", "results/adversarial/test/M1_prime.h5"],
    "evaluate_distorted": ["results/evaluation/table4.h5"],
}


def jobs(process: psutil.Process, rule: str = "") -> list[psutil.Process]:
    """The programs that work for a Snakemake."""
    found = []
    for child in process.children(recursive=True):
        try:
            if any(part.startswith(f"scripts.{rule}") for part in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError("nothing happened")


def started(folder: Path) -> Running:
    return Running(folder, command(*SMALL, *TABLES))


def delete(folder: Path, rule: str) -> None:
    for name in OUTPUTS[rule]:
        (folder / name).unlink()
    for table in TABLES:
        for path in folder.glob(table.replace("csv", "*")):
            path.unlink()


def assert_all_artifacts_are_whole(folder: Path) -> None:
    for path in folder.glob("results/**/*.h5"):
        with artifacts.read(path):
            pass


def assert_the_same_command_recovers(folder: Path, finished: Path) -> None:
    assert_all_artifacts_are_whole(folder)
    again = snakemake(folder, *SMALL, *TABLES)
    assert again.returncode == 0, again.stderr
    assert_tables_are_as_undisturbed(folder, finished)


def assert_tables_are_as_undisturbed(folder: Path, finished: Path) -> None:
    for table in TABLES:
        assert (folder / table).read_bytes() == (finished / table).read_bytes()


# Kills


@pytest.mark.parametrize("victim", ["job", "snakemake"])
@pytest.mark.parametrize(
    ("rule", "delay"), [("train_network", 0.1), ("attack_network", 2), ("evaluate_distorted", 1)]
)
def test_the_same_command_recovers_from_a_kill(clone, finished, rule, delay, victim):
    delete(clone, rule)
    with started(clone) as run:
        working = wait_for(lambda: jobs(run.engine, rule))
        time.sleep(delay)
        for process in working if victim == "job" else [run.engine]:
            process.kill()
        assert run.end()[0] != 0
    # No job outlives a killed Snakemake: it would go on writing beside the next run's.
    wait_for(lambda: not any(alive(process) for process in working), seconds=1)
    assert_the_same_command_recovers(clone, finished)


def test_the_same_command_recovers_from_kills_at_random_moments(finished, tmp_path, request):
    """As many as --kills says, one after the other, of
    Snakemake or of a job, from the raw data to the tables."""
    kills, moments = request.config.getoption("--kills"), random.Random(2013)
    folder = copy_code(tmp_path / "clone")
    while kills:
        with started(folder) as run:
            try:
                status, _ = run.end(moments.uniform(1, 15))
            except subprocess.TimeoutExpired:
                with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                    moments.choice([run.engine, *jobs(run.engine)]).kill()
                    kills -= 1
                status, _ = run.end()
        assert_all_artifacts_are_whole(folder)
        if status == 0:  # before the moment of the kill, or in spite of it
            assert_tables_are_as_undisturbed(folder, finished)
            folder = copy_code(tmp_path / f"clone{kills}")
    assert_the_same_command_recovers(folder, finished)


# Failures after a change

SEED = "networks={M1: {seed: 77}}"
TARGETS = "attack={seed: 77}"


def test_the_same_command_goes_on_after_a_failure_in_a_changed_run(clone):
    """Snakemake deletes what a job made before it starts it
    again, and with it what it knows of the earlier settings."""
    arguments = (*SMALL, *TABLES, "--config", SEED)
    with Running(clone, command(*arguments)) as run:
        for process in wait_for(lambda: jobs(run.engine, "train_network")):
            process.kill()
        assert run.end()[0] != 0
    assert not (clone / "results/networks/M1.h5").exists()
    assert snakemake(clone, *arguments).returncode == 0
    assert planned_rules(snakemake(clone, *arguments, "-n")) == set()
    recovered = [(clone / table).read_bytes() for table in TABLES]
    assert snakemake(clone, *arguments, "--forceall").returncode == 0
    assert [(clone / table).read_bytes() for table in TABLES] == recovered


@pytest.mark.parametrize(
    ("missing", "change", "rules"),
    [
        (
            "networks/M1.h5",
            SEED,
            {"train_network", "attack_network", "tabulate_baseline", "tabulate_transfer"},
        ),
        (
            "splits.h5",
            "splits={seed: 77}",
            {"split_images", "train_network", "attack_network", "tabulate_transfer"},
        ),
        (
            "adversarial/test/M1/1-of-1.h5",
            TARGETS,
            {"attack_network", "evaluate_distorted", "tabulate_transfer"},
        ),
        ("evaluation/table4.h5", TARGETS, {"attack_network", "evaluate_distorted", "tabulate_transfer"}),
    ],
)
def test_a_table_counts_as_old_where_what_it_comes_from_has_other_settings_and_is_gone(
    clone, missing, change, rules
):
    (clone / "results" / missing).unlink()
    assert planned_rules(snakemake(clone, *SMALL, *TABLES, "-n")) == set()
    assert rules <= planned_rules(snakemake(clone, *SMALL, *TABLES, "-n", "--config", change))


# Disks


@pytest.fixture
def disk(tmp_path):
    """A small disk of one's own, which `mount -o remount` changes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", folder], capture_output=True
    ).returncode:
        pytest.skip("a disk cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


@pytest.mark.parametrize("place", ["results", "everything"])
def test_the_same_command_recovers_from_a_full_disk(disk, clone, finished, place):
    moved = clone / "results" if place == "results" else clone
    shutil.copytree(moved, disk / "moved", copy_function=shutil.copy2)
    shutil.rmtree(moved)
    moved.symlink_to(disk / "moved", target_is_directory=True)
    delete(clone, "attack_network")
    room = shutil.disk_usage(disk).free
    (disk / "other").write_bytes(bytes(room - 100_000))  # less than the shard of images takes
    full = snakemake(clone, *SMALL, *TABLES)
    assert full.returncode != 0
    assert "No space left on device" in full.stderr
    (disk / "other").unlink()
    assert_the_same_command_recovers(clone, finished)


def test_a_disk_that_is_full_or_read_only_is_one_line_and_leaves_nothing(disk):
    array = {"images": artifacts.Array(torch.zeros(2**20), "4 MiB")}
    remount(disk, "size=2m")
    with pytest.raises(
        artifacts.ArtifactError, match=r"some\.h5 cannot be written \(No space left on device\)"
    ):
        artifacts.write(disk / "some.h5", array, {})
    assert list(disk.iterdir()) == []
    remount(disk, "ro")
    with pytest.raises(
        artifacts.ArtifactError, match=r"some\.h5 cannot be written \(Read-only file system\)"
    ):
        artifacts.write(disk / "some.h5", array, {})


def test_results_that_are_read_only_can_be_looked_at_but_not_made(clone, finished, disk):
    results = clone / "results"
    results.rename(clone / "made")
    results.mkdir()
    subprocess.run(["mount", "--bind", clone / "made", results], check=True)
    try:
        delete(clone, "evaluate_distorted")
        subprocess.run(["mount", "-o", "remount,bind,ro", results], check=True)
        assert "evaluate_distorted" in planned_rules(snakemake(clone, *SMALL, *TABLES, "-n"))
        refused = snakemake(clone, *SMALL, *TABLES)
        assert refused.returncode != 0
        assert (
            f"Error: {results} cannot be written: allow it, or choose another --directory" in refused.stderr
        )
        assert "Traceback" not in refused.stderr
        subprocess.run(["mount", "-o", "remount,bind,rw", results], check=True)
        assert_the_same_command_recovers(clone, finished)
    finally:
        subprocess.run(["umount", "--lazy", results], check=True)


# Memory


@pytest.mark.parametrize(
    "allocate", [lambda step: np.ones(2**50), lambda step: torch.ones(2**50)], ids=["numpy", "torch"]
)
def test_a_job_without_memory_says_so_in_one_line(tmp_path, capsys, allocate):
    arguments = ["--output", str(tmp_path / "some.h5"), "--log", str(tmp_path / "some.log")]
    assert step.run(allocate, "scripts.attack_network", (), arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "out of memory" in line
    assert "attack.images_per_job" in line


# Company


def test_of_two_at_once_one_refuses_and_the_other_is_not_disturbed(clone, finished):
    delete(clone, "train_network")
    with started(clone) as one, started(clone) as other:
        (first, _), (second, refusal) = sorted([one.end(), other.end()])
    assert (first, second) == (0, 1)
    assert (
        f"Error: another Snakemake is at work in {clone}: wait for it, or choose another --directory"
        in refusal
    )
    assert "Traceback" not in refusal
    assert_tables_are_as_undisturbed(clone, finished)


def test_while_one_is_at_work_another_may_look(clone):
    delete(clone, "train_network")
    with started(clone) as run:
        wait_for(lambda: jobs(run.engine, "train_network"))
        looked = snakemake(clone, *SMALL, *TABLES, "-n")
    assert looked.returncode == 0, looked.stderr


# Time


def test_a_clock_that_jumps_back_changes_nothing(clone, finished):
    """As if all that is there had been made while the clock was a day ahead."""
    delete(clone, "evaluate_distorted")
    tomorrow = time.time() + 24 * 3600
    for path in clone.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    assert "train_network" not in planned_rules(snakemake(clone, *SMALL, *TABLES, "-n"))
    assert_the_same_command_recovers(clone, finished)
    assert planned_rules(snakemake(clone, *SMALL, *TABLES, "-n")) == set()


def test_tables_whose_settings_nobody_remembers_are_not_called_up_to_date(clone):
    shutil.rmtree(clone / ".snakemake")
    run = snakemake(clone, *SMALL, *TABLES, "--config", SEED)
    assert run.returncode != 0
    assert "/.snakemake/metadata is empty, so that results/ would count as up to date" in run.stderr
    assert "Traceback" not in run.stderr
    assert snakemake(clone, *SMALL, *TABLES, "--dry-run").returncode == 0  # as the audit asks for the plan


RULE = """

rule some:
    output:
        'results/some.txt',
    shell:
        'touch {output}'
"""


@pytest.mark.parametrize("started_in", ["other", "clone"])
def test_another_default_profile_is_warned_of_where_snakemake_reads_it(tmp_path, started_in):
    clone, other = copy_code(tmp_path / "clone"), tmp_path / "other"
    (other / "profiles/default").mkdir(parents=True)
    (other / "profiles/default/config.yaml").write_text("keep-going: true\n")
    with (clone / "Snakefile").open("a") as file:
        file.write(RULE)
    paths = (f"--snakefile={clone / 'Snakefile'}", f"--configfile={clone / 'config/small.yaml'}")
    run = snakemake(tmp_path / started_in, *paths, "--directory", str(other), "results/some.txt")
    assert run.returncode == 0, run.stderr
    assert ("Snakemake has not read this workflow's profile" in run.stderr) == (started_in == "other")
