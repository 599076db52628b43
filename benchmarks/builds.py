"""Compare an earlier build of the workflow with this one.

    python benchmarks/builds.py REVISION [TARGET ...] > builds.md

Both builds make the same targets, by default Tables 3 and 4. They run job by job and in turns, several times,
with one thread. Each run has its own folder. The table has the median CPU seconds of every job for both
builds, and their ratio. The start of the program is included. With --cores it then runs each build's workflow
as a user does, and prints the seconds that this takes.

    --config      changes of config/config.yaml for both builds, in the syntax of Snakemake's --config:
                  'attack={sample: 1000}'
    --repetitions the number of repetitions (default 3)
    --cores       also measure `snakemake --cores N TARGET`, after the data have been verified

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
    """CPU seconds of each job for both builds, and their sums for each kind of artifact."""
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
    """Wall-clock seconds that Snakemake needs to make the targets from verified data."""
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
