"""Measure and predict the benefit of more cores: python benchmarks/cores.py [TARGET ...] > cores.md

Every job that makes the targets, by default Tables 3 and 4, runs with one thread and with two. Both runs must
make the same bytes. The first table has the seconds of both runs. They determine the serial part of a job and
the part that its threads share, and so its time with more threads. The second table predicts the time of a
schedule for several numbers of cores. The longest jobs start first. A job starts as soon as one core is free
for each of its threads. The number of threads follows `threads_of` in rules/resources.smk.

    --config      changes of config/config.yaml, in the syntax of Snakemake's --config
    --repetitions the number of runs of a job with each number of threads, for the median (default 1)

Markdown goes to stdout, progress to stderr.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from jobs import ROOT, Job, planned, run

from blindspots.steps import artifacts

TABLES = ("results/table3.csv", "results/table4.csv")
CORES = (1, 2, 3, 4, 6, 8, 12, 16)
# Seconds between the end of a job and the start of the next job on its cores, from Snakemake's log.
ENGINE = 0.1


class Cost(NamedTuple):
    """Seconds of a job with one thread: the serial part, and the part that its threads share."""

    serial: float
    shared: float

    def on(self, threads: int) -> float:
        return self.serial + self.shared / threads


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", default=TABLES)
    parser.add_argument("--config", nargs="*", default=[])
    parser.add_argument("--repetitions", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        jobs = planned(ROOT, folder, options.targets, options.config)
        seconds = {job.name: measured(job, folder, options.repetitions) for job in jobs}
    frame = pd.DataFrame(seconds, index=["1 thread, s", "2 threads, s"]).T
    frame["times as fast"] = frame["1 thread, s"] / frame["2 threads, s"]
    print(frame[[job.takes_threads for job in jobs]].round(2).to_markdown(), "\n")
    costs = {job.name: cost(job, *seconds[job.name]) for job in jobs}
    pays = yaml.safe_load((ROOT / "config/config.yaml").read_text())["training"]["threads"]
    print(
        pd.DataFrame([scheduled(jobs, costs, pays, cores) for cores in CORES])
        .round(2)
        .to_markdown(index=False)
    )
    return 0


def measured(job: Job, folder: Path, repetitions: int) -> tuple[float, float]:
    """The median seconds with one thread and with two.

    Raises SystemExit if the two do not make the same artifact.
    """
    walls, made = {1: [], 2: []}, set()
    for _ in range(repetitions):
        for threads in walls if job.takes_threads else [1]:
            walls[threads].append(run(ROOT, folder, job, threads).wall)
            print(f"{job.name}: {threads} threads: {walls[threads][-1]:.1f} s", file=sys.stderr)
            made |= {artifacts.identity(folder / path) for path in job.outputs if path.endswith(".h5")}
    if len(made) > len([path for path in job.outputs if path.endswith(".h5")]):
        raise SystemExit(f"{job.name}: one thread and two make other bytes")
    one = statistics.median(walls[1])
    return one, statistics.median(walls[2] or [one])


def cost(job: Job, one: float, two: float) -> Cost:
    shared = min(one, max(0.0, 2 * (one - two))) if job.takes_threads else 0.0
    return Cost(one - shared, shared)


def scheduled(jobs: Sequence[Job], costs: Mapping[str, Cost], pays: int, cores: int) -> dict[str, float]:
    """Schedule the jobs on a number of cores.

    It returns the end, the longest path, and the share of the cores' time in which they have no job.
    """
    maker = {path: job.name for job in jobs for path in job.outputs}
    needs = {job.name: {maker[path] for path in job.inputs if path in maker} for job in jobs}
    threads = {job.name: max(1, min(pays, cores // 2)) if job.takes_threads else 1 for job in jobs}
    length = {name: costs[name].on(threads[name]) for name in needs}
    waiting, running, done = sorted(needs, key=length.__getitem__, reverse=True), {}, set()
    now, free, busy = 0.0, cores, 0.0
    while waiting or running:
        for name in [name for name in waiting if needs[name] <= done]:
            if threads[name] <= free:
                waiting.remove(name)
                running[name] = now + length[name] + ENGINE
                free -= threads[name]
                busy += threads[name] * length[name]
        ended = min(running, key=running.__getitem__)
        now = running.pop(ended)
        free += threads[ended]
        done.add(ended)
    path: dict[str, float] = {}
    for job in jobs:  # each job stands after those that it needs
        path[job.name] = length[job.name] + max((path[name] for name in needs[job.name]), default=0.0)
    return {
        "cores": cores,
        "seconds": now,
        "longest path": max(path.values()),
        "idle %": 100 * (1 - busy / (cores * now)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
