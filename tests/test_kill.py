"""Kill a job, or Snakemake itself, at any moment: the same command again gives the tables of an undisturbed run."""

import os
import signal
import subprocess
import time

import psutil
import pytest
from conftest import SMALL, TABLES, command, snakemake

# What is deleted before the run, so that the rule has to work again.
OUTPUTS = {
    "train": ["results/networks/M1.h5", "results/adversarial/test/M1.h5", "results/evaluation/table3.h5"],
    "attack": ["results/adversarial/test/M1_prime/1-of-1.h5", "results/adversarial/test/M1_prime.h5"],
    "evaluate_distorted": ["results/evaluation/table4.h5"],
}


def jobs(process: psutil.Process, rule: str) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            if f"scripts.{rule}" in child.cmdline():
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


@pytest.mark.parametrize("victim", ["job", "snakemake"])
@pytest.mark.parametrize(("rule", "delay"), [("train", 0.1), ("attack", 2), ("evaluate_distorted", 1)])
def test_the_same_command_recovers_from_a_kill(clone, finished, rule, delay, victim):
    for name in [*OUTPUTS[rule], *TABLES]:
        (clone / name).unlink()
    with subprocess.Popen(command(*SMALL, *TABLES), cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        engine = psutil.Process(run.pid)
        started = wait_for(lambda: jobs(engine, rule))
        time.sleep(delay)
        for process in started if victim == "job" else [engine]:
            os.kill(process.pid, signal.SIGKILL)
        run.communicate()
    assert run.returncode != 0
    # No job outlives a killed Snakemake: it would go on writing beside the next run's.
    wait_for(lambda: not any(alive(process) for process in started), seconds=1)

    again = snakemake(clone, *SMALL, *TABLES)
    assert again.returncode == 0, again.stderr
    for table in TABLES:
        assert (clone / table).read_bytes() == (finished / table).read_bytes()
