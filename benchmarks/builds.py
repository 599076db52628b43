"""An earlier build of the workflow beside this one: python benchmarks/builds.py REVISION [TARGET ...] > builds.md

Both make the same targets (by default Tables 3 and 4), job by job and by turns, several times, each in a folder of its own,
with one thread. The table has the CPU seconds of every job of either build, medians, the start of its program included, and
their ratios. With --cores it then runs each build's workflow as a person does, and prints the seconds that this takes.

    --config      what differs from config/config.yaml in both, as Snakemake's --config takes it: 'attack={sample: 1000}'
    --repetitions how often (default 3)
    --cores       also measure `snakemake --cores N TARGET`, with the data verified before

Markdown goes to stdout, progress to stderr.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
from jobs import ROOT, planned, run, snakemake, worktree

TABLES = ("results/table3.csv", "results/table4.csv")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", help="the earlier build, as Git calls it")
    parser.add_argument("targets", nargs="*", default=TABLES)
    parser.add_argument("--config", nargs="*", default=[])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cores", type=int)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        worktree(options.revision, Path(scratch, "before")) as before,
    ):
        builds = {"before": before, "now": ROOT}
        print(per_job(builds, Path(scratch), options).to_markdown(), "\n")
        if options.cores:
            print(whole(builds, Path(scratch), options).to_markdown())
    return 0


def per_job(builds: dict[str, Path], scratch: Path, options: argparse.Namespace) -> pd.DataFrame:
    """CPU seconds of each job by either build, and of each kind of artifact altogether."""
    seconds = defaultdict(list)
    for repetition in range(options.repetitions):
        for build, checkout in builds.items():
            folder = scratch / f"{build}{repetition}"
            folder.mkdir()
            for job in planned(checkout, folder, options.targets, options.config):
                measured = run(checkout, folder, job)
                seconds[job.name, build].append(measured.cpu)
                print(f"{repetition + 1}: {build}: {job.name}: {measured.cpu:.1f} s", file=sys.stderr)
    frame = pd.Series({key: statistics.median(values) for key, values in seconds.items()}).unstack()[
        [*builds]
    ]
    frame["kind"] = [name.partition("/")[0] for name in frame.index]
    sums = frame.groupby("kind").sum()
    both = pd.concat([frame.drop(columns="kind"), sums.rename(index=lambda name: f"**{name}**")])
    both.loc["**all**"] = sums.sum()
    both["now / before"] = both["now"] / both["before"]
    return both.round(2)


def whole(builds: dict[str, Path], scratch: Path, options: argparse.Namespace) -> pd.DataFrame:
    """Seconds of the wall clock in which Snakemake makes the targets from verified data."""
    seconds = defaultdict(list)
    changes = ["--config", *options.config] if options.config else []
    for repetition in range(options.repetitions):
        for build, checkout in builds.items():
            folder = scratch / f"whole-{build}{repetition}"
            folder.mkdir()
            cores = ("--cores", str(options.cores))
            snakemake(checkout, folder, *cores, *changes, "--", "results/data.h5")
            start = time.perf_counter()
            snakemake(checkout, folder, *cores, *changes, "--", *options.targets)
            seconds[build].append(time.perf_counter() - start)
            print(f"{repetition + 1}: {build}: {seconds[build][-1]:.0f} s", file=sys.stderr)
    row = {build: statistics.median(values) for build, values in seconds.items()}
    frame = pd.DataFrame([row], index=[f"wall clock, {options.cores} cores"])
    frame["now / before"] = frame["now"] / frame["before"]
    return frame.round(2)


if __name__ == "__main__":
    raise SystemExit(main())
