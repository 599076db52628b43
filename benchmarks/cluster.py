"""Measure how shards and workers affect the time of an attack on Slurm: python benchmarks/cluster.py

It starts a cluster of two nodes on this machine (tests/slurm.sh) and trains a network of the small variant.
Then it attacks the same images with several numbers of shards and of nodes. Each node has one core. `ideal`
is the programs' own time, divided evenly among the workers. `beyond` is the rest of the workers' time for
each job. It consists of the job's start and the wait until Snakemake notices the job's end.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "tests/slurm.sh"
IMAGES = 8000
SEARCH = {"max_searches": 30, "max_evaluations": 200}  # the values for the paper's tables
SHARDS = (1, 2, 4, 8)
WORKERS = (1, 2)


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        cluster, folder = Path(place, "slurm"), Path(place, "clone")
        ignore = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT, folder, ignore=ignore)
        subprocess.run([SLURM, "start", cluster, "1"], check=True)
        try:
            environment = sourced(cluster / "env.sh")
            run(folder, environment, "results/networks/M1.h5", shards=1, workers=1)
            rows = [
                measured(folder, environment, shards, workers) for workers in WORKERS for shards in SHARDS
            ]
        finally:
            subprocess.run([SLURM, "stop", cluster], check=True)
    print(f"{IMAGES} images, {os.cpu_count()} cores of this machine behind both nodes\n")
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    return 0


def sourced(script: Path) -> dict[str, str]:
    """The environment variables after a shell script has run."""
    said = subprocess.run(
        ["bash", "-c", f". {script} && env -0"], capture_output=True, text=True, check=True
    ).stdout
    return dict(entry.split("=", 1) for entry in said.rstrip("\0").split("\0"))


def run(folder: Path, environment: dict[str, str], target: str, shards: int, workers: int) -> None:
    attack = {"sample": IMAGES, "images_per_job": IMAGES // shards, "lbfgs": SEARCH}
    (folder / "shards.yaml").write_text(
        json.dumps({"networks": {"M1": {"units": [100, 100, 10]}}, "attack": attack})
    )
    settings = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--profile",
        "profiles/slurm",
        *settings,
        "--jobs",
        str(workers),
    ]
    command += [target, "--configfile", "config/small.yaml", "shards.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def measured(folder: Path, environment: dict[str, str], shards: int, workers: int) -> dict[str, float]:
    shutil.rmtree(folder / "results/adversarial", ignore_errors=True)
    shutil.rmtree(folder / "results/benchmarks/attack_network", ignore_errors=True)
    begin = time.monotonic()
    run(folder, environment, "results/adversarial/test/M1.h5", shards, workers)
    wall = time.monotonic() - begin
    programs = sum(
        pd.read_csv(path, sep="\t")["s"].sum()
        for path in folder.glob("results/benchmarks/attack_network/**/*.tsv")
    )
    return {
        "workers": workers,
        "shards": shards,
        "wall s": wall,
        "programs s": programs,
        "ideal s": programs / workers,
        "ideal / wall": programs / workers / wall,
        "beyond, s a job": (wall * workers - programs) / shards,
    }


if __name__ == "__main__":
    raise SystemExit(main())
