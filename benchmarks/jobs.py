"""Run and measure the jobs of a checkout of the workflow one by one, for builds.py and cores.py."""

import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from blindspots.steps.shards import expanded

ROOT = Path(__file__).parents[1]
_COMMAND = "exec python "  # the command of every rule begins with it


class Job(NamedTuple):
    """One run of a program: its command, its input and its output files, relative to the run's folder."""

    command: list[str]
    inputs: list[str]
    outputs: list[str]

    @property
    def takes_threads(self) -> bool:
        return "--threads" in self.command

    @property
    def name(self) -> str:
        """The name of its output, such as `networks/M1`.

        Names of rules and programs would not do, because earlier builds may have others.
        """
        return self.outputs[0].removeprefix("results/").removesuffix(".h5")


class Measured(NamedTuple):
    cpu: float  # CPU seconds of all cores, with the program's start
    wall: float  # seconds of the wall clock


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """A checkout of a revision of this repository. It exists until the `with` block ends."""
    subprocess.run(
        ["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", folder, revision], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", folder], check=True)


def snakemake(checkout: Path, folder: Path, *arguments: str) -> str:
    """Run a checkout's workflow in a folder and return its standard output."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(checkout / "Snakefile"), *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{run.stdout}{run.stderr}")
    return run.stdout


def planned(checkout: Path, folder: Path, targets: Sequence[str], config: Sequence[str] = ()) -> list[Job]:
    """All jobs that make the targets, each after those that it needs.

    config: changes of config/config.yaml, in the syntax of Snakemake's --config.
    """
    changes = ["--config", *config] if config else []
    printed = snakemake(checkout, folder, "--cores", "1", "-n", "-F", "-p", *changes, "--", *targets)
    return [_job(line.partition("exec ")[2]) for line in printed.splitlines() if _COMMAND in line]


def _job(command: str) -> Job:
    words = shlex.split(command)
    options: dict[str, list[str]] = {}
    for word in words[words.index("-m") + 2 :]:
        if word.startswith("--"):
            values = options.setdefault(word.removeprefix("--"), [])
        else:
            values.append(word)
    outputs = options.pop("output")
    for name in ("settings", "unrecorded", "log", "threads"):
        options.pop(name, None)
    return Job(words, [path for paths in options.values() for path in expanded(paths)], outputs)


def run(checkout: Path, folder: Path, job: Job, threads: int = 1) -> Measured:
    """Run a job in a folder that has its inputs, with a number of threads if it accepts one."""
    words = [sys.executable, *job.command[1:]]
    if job.takes_threads:
        words[words.index("--threads") + 1] = str(threads)
    # Snakemake sets the same variables.
    variables = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    environment = {**os.environ, **variables, "PYTHONPATH": str(checkout / "workflow")}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finished = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise SystemExit(f"{job.name} failed:\n{finished.stderr}")
    return Measured(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)
