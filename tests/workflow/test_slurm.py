"""The small variant on a real Slurm of two nodes: resources
as asked for, faults, and the table of a local run."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT, SMALL, Running, copy_code

SLURM = ROOT / "tests/slurm.sh"
COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol")
TABLE = "results/table4.csv"
SUBMITTED = ("train_network", "attack_network", "refine_examples", "evaluate_distorted")
# The plugin asks ever less often what is finished while nothing
# is, which these jobs of seconds would mostly wait for.
IMPATIENT = (
    "import asyncio; from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor; "
)
IMPATIENT += "RemoteExecutor.sleep = lambda self: asyncio.sleep(1); from snakemake.cli import main; main()"
# Beside the profile: a cluster without accounting, jobs of seconds, and local files that are there at once.
HERE = (
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--latency-wait",
    "10",
)


class Cluster:
    def __init__(self, folder: Path):
        said = subprocess.run(
            ["bash", "-c", f". {folder}/env.sh && env -0"], capture_output=True, text=True, check=True
        )
        self.environment = dict(line.split("=", 1) for line in said.stdout.rstrip("\0").split("\0"))

    def ask(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    def jobs(self, run: str = "") -> list[dict[str, str]]:
        """The jobs of this cluster, as `scontrol show job`
        tells of them, or those of a run that said this."""
        lines = [
            line
            for line in self.ask("scontrol", "show", "job", "--oneliner").splitlines()
            if line.startswith("JobId")
        ]
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        jobs = [
            job | {"rule": job["Comment"].removeprefix("rule_").partition("_wildcards")[0]} for job in jobs
        ]
        name = re.search(r"SLURM run ID: (\S+)|$", run).group(1)
        return sorted(
            (job for job in jobs if name in (None, job["JobName"])),
            key=lambda job: SUBMITTED.index(job["rule"]),
        )

    def start(self, folder: Path, *arguments: str, target: str = TABLE) -> Running:
        command = [
            sys.executable,
            "-c",
            IMPATIENT,
            "--profile",
            "profiles/slurm",
            *HERE,
            *SMALL,
            target,
            *arguments,
        ]
        return Running(folder, command, self.environment)

    def wait_for(self, rule: str, state: str = "RUNNING", seconds: float = 240) -> dict[str, str]:
        """The newest job of a rule, as soon as it is in this state."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [job for job in self.jobs() if job["rule"] == rule and job["JobState"] == state]
            if found:
                return found[-1]
            time.sleep(0.2)
        raise AssertionError(f"no job of {rule} is {state}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = [command for command in COMMANDS if not shutil.which(command)]
    if (missing or os.getuid()) and not os.environ.get("CI"):
        pytest.skip(
            f"Slurm cannot be started here: it takes root, and {', '.join(missing) or 'nothing'} is missing"
        )
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SLURM, "start", folder, "2"], check=True)
    yield Cluster(folder)
    subprocess.run([SLURM, "stop", folder], check=True)


def program(module: str, folder: Path, *words: str) -> psutil.Process:
    """The process of a step that works in a folder, as soon as there is one."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for process in psutil.process_iter():
            try:
                line = process.cmdline()
                if (
                    module in line
                    and all(word in " ".join(line) for word in words)
                    and Path(process.cwd()) == folder
                ):
                    return process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                pass
        time.sleep(0.1)
    raise AssertionError(f"{module} does not run in {folder}")


def test_jobs_run_as_asked_for_and_the_table_is_the_local_runs(cluster, mnist, request, tmp_path):
    folder = copy_code(tmp_path / "clone")
    resources = (
        "--set-resources",
        "train_network:gpu=1",
        "attack_network:gpu=1",
        "train_network:mem_mb=1500*attempt",
    )
    with cluster.start(
        folder, *resources
    ) as first:  # this Snakemake is killed while its jobs run, and they run on
        cluster.wait_for("train_network")
        first.engine.kill()
        _, before = first.end()
    with cluster.start(folder, *resources) as second:
        status, said = second.end()
    assert status == 0, said
    assert "SLURM run ID" in before
    finished = request.getfixturevalue("finished")  # which another worker makes meanwhile
    assert (folder / TABLE).read_bytes() == (finished / TABLE).read_bytes()

    jobs = cluster.jobs(said)
    both = [*cluster.jobs(before), *jobs]  # the training may have ended before the second one looked
    assert {job["rule"] for job in both} == set(SUBMITTED)  # the small steps ran where Snakemake did
    assert [job["rule"] for job in jobs].count("attack_network") == 3
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert {job["NodeList"] for job in jobs} == {"n1", "n2"}
    for job in both:
        assert job["NumCPUs"] == "1"
        assert job["MinMemoryNode"] == {"train_network": "1500M"}.get(job["rule"], "2000M")
        assert job["TimeLimit"] == {"train_network": "02:00:00", "evaluate_distorted": "00:30:00"}.get(
            job["rule"], "01:00:00"
        )
        assert ("gres:gpu:1" in job.get("TresPerJob", "")) == (
            job["rule"] in ("train_network", "attack_network")
        )


def test_a_configuration_that_asks_for_a_gpu_asks_the_cluster_for_one(cluster, mnist, tmp_path):
    on_a_gpu = ("--config", "training={device: cuda}", "--retries", "0")
    with cluster.start(copy_code(tmp_path / "clone"), *on_a_gpu, target="results/networks/M1.h5") as running:
        status, said = running.end()
    (job,) = cluster.jobs(said)
    assert "gres:gpu:1" in job["TresPerJob"]
    if not torch.cuda.is_available():
        assert status != 0
        assert "device: cuda is asked for, but torch finds no CUDA device here: use auto or cpu" in said


def test_a_job_that_fails_on_the_cluster_is_tried_again_with_more(cluster, finished, clone):
    """One is killed for its memory, one loses its node, one hangs
    until its time is over, one is cancelled from outside."""
    for name in ("networks/M1.h5", "evaluation/table4.h5", "table4.csv"):
        (clone / "results" / name).unlink()
    with cluster.start(
        clone, "--set-resources", "train_network:mem_mb=400*attempt", "refine_examples:runtime=attempt"
    ) as running:
        lost = cluster.wait_for("attack_network")["NodeList"]
        cluster.ask("scontrol", "update", f"nodename={lost}", "state=down", "reason=test")
        program("scripts.refine_examples", clone).suspend()
        cluster.ask("scancel", cluster.wait_for("evaluate_distorted")["JobId"])
        status, said = running.end()
    assert status == 0, said
    assert (clone / TABLE).read_bytes() == (finished / TABLE).read_bytes()

    jobs = cluster.jobs(said)
    assert [(job["rule"], job["JobState"]) for job in jobs] == [
        ("train_network", "FAILED"),  # as this cluster calls it; those with cgroups say OUT_OF_MEMORY
        ("train_network", "COMPLETED"),
        ("attack_network", "NODE_FAIL"),
        ("attack_network", "COMPLETED"),
        ("refine_examples", "TIMEOUT"),
        ("refine_examples", "COMPLETED"),
        ("evaluate_distorted", "CANCELLED"),
        ("evaluate_distorted", "COMPLETED"),
    ]
    assert [job["MinMemoryNode"] for job in jobs if job["rule"] == "train_network"] == ["400M", "800M"]
    assert [job["TimeLimit"] for job in jobs if job["rule"] == "refine_examples"] == ["00:01:00", "00:02:00"]
    for state in ("FAILED", "NODE_FAIL", "TIMEOUT", "CANCELLED"):
        assert f"SLURM status is: '{state}" in said
