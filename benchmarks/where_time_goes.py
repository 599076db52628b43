"""Show where the time of a finished run goes: python benchmarks/where_time_goes.py

The first table has the time of each rule, from the benchmark files of the last run in results/. The second
compares the time for the provenance records with the time of their steps. The third has the time of each
phase: of the gradients, and of all of training and attack per gradient. It is measured now, with one thread,
on the networks of that run. Floating-point rates stand beside this machine's rate for a plain matrix product.
"""

import hashlib
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from blindspots.attack.core import METHODS, minimum_distortion
from blindspots.audit.records import Artifact
from blindspots.networks import architectures
from blindspots.steps import artifacts, image_sets, trained_networks
from blindspots.steps.fingerprint import fingerprint
from blindspots.steps.step import Step
from blindspots.training import convergence
from blindspots.training.total_loss import decay

RESULTS = Path("results")
IMAGES = 1000
ITERATIONS = 10


def main() -> int:
    if not (RESULTS / "table4.csv").exists():
        print("There is no finished run in results/: run make table4 first.", file=sys.stderr)
        return 1
    print(per_rule().to_string(index=False), "\n")
    print(records().to_string(index=False), "\n")
    torch.set_num_threads(1)
    peak = matrix_product_rate()
    print(f"4096 x 4096 float32 matrix product, one thread: {peak:.0f} GFLOP/s\n")
    rows = [phase for path in sorted((RESULTS / "networks").glob("*.h5")) for phase in phases(path, peak)]
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def per_rule() -> pd.DataFrame:
    """The jobs of each rule: their number, the sum of their seconds, and their largest memory."""
    root = RESULTS / "benchmarks"
    jobs = [
        pd.read_csv(path, sep="\t").assign(rule=path.relative_to(root).parts[0].removesuffix(".tsv"))
        for path in root.rglob("*.tsv")
    ]
    table = pd.concat(jobs).groupby("rule")
    frame = pd.DataFrame(
        {"jobs": table.size(), "seconds": table["s"].sum(), "largest MiB": table["max_rss"].max()}
    )
    frame["share %"] = 100 * frame["seconds"] / frame["seconds"].sum()
    return frame.sort_values("seconds", ascending=False).round(1).reset_index()


def records() -> pd.DataFrame:
    """The time to make the record of each artifact again, beside the time of its step in the run.

    The reading of the inputs is not counted: a step has read them and checked their seals before it makes the
    record.
    """
    rows = []
    for path in sorted(RESULTS.rglob("*.h5")):
        artifact = Artifact(Path(), str(path))
        step = Step(
            artifact.record["program"], SimpleNamespace(settings={}, unrecorded={}, output=[path]), []
        )
        step.inputs = {role: list(paths) for role, paths in artifact.record["inputs"].items()}
        for name in artifact.inputs():
            artifacts.identity(name)
        fingerprint.cache_clear()
        start = time.perf_counter()
        step.record()
        with open(path, "rb") as raw, h5py.File(path) as file:
            artifacts.content_hash(file)
            hashlib.file_digest(raw, "sha256")
        rows.append(
            (artifact.record["program"], time.perf_counter() - start, artifact.record["wall_seconds"])
        )
    frame = pd.DataFrame(rows, columns=["program", "record", "step"]).groupby("program").sum()
    frame.loc["all"] = frame.sum()
    frame["share %"] = 100 * frame["record"] / frame["step"]
    return frame.sort_values("step", ascending=False).round(2).reset_index()


def matrix_product_rate(size: int = 4096) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / typical_seconds(lambda: a @ b) / 1e9


def phases(path: Path, peak: float) -> list[dict]:
    """The phases of training and attack for one network.

    Each has its milliseconds, its GFLOP/s, and this rate relative to that of the matrix product.
    """
    network = trained_networks.read(path)
    with artifacts.read(RESULTS / "splits.h5") as file:
        part = file[next(iter(file))][()]
    images, labels = image_sets.read(RESULTS / "data.h5", "train", part)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
    layers = len(architectures.weight_layers(network))

    network.requires_grad_(True)
    parameters = list(network.parameters())

    def training_gradient():
        loss = torch.nn.functional.cross_entropy(network(x), y) + decay(network, [1e-5] * layers, "half")
        torch.autograd.grad(loss, parameters)

    flops = count_flops(training_gradient)
    gradient = typical_seconds(training_gradient)
    start = time.perf_counter()
    trained = convergence.fit(
        network, x, y, weight_decay=[1e-5] * layers, method="full_batch", max_iterations=ITERATIONS
    )
    per_evaluation = (time.perf_counter() - start) / trained.history[-1].evaluations

    network = trained_networks.read(path)
    test, test_labels = image_sets.read(RESULTS / "data.h5", "test")
    batch = torch.from_numpy(test[:IMAGES])
    target = (torch.from_numpy(test_labels[:IMAGES]).long() + 1) % 10
    few = batch[:500].clone().requires_grad_()

    def attack_gradient():
        torch.nn.functional.cross_entropy(network(few), target[:500], reduction="sum").backward()

    attack_flops = count_flops(attack_gradient) / 500
    attack_seconds = typical_seconds(attack_gradient) / 500
    whole = {method: seconds_per_gradient(network, batch, target, method) for method in METHODS}

    name = path.stem
    return [
        row(name, "training: one gradient", 1e3 * gradient, flops / gradient / 1e9, peak),
        row(name, "training: all, per gradient", 1e3 * per_evaluation, flops / per_evaluation / 1e9, peak),
        row(
            name,
            "attack: one image's gradient",
            1e3 * attack_seconds,
            attack_flops / attack_seconds / 1e9,
            peak,
        ),
        *(
            row(
                name,
                f"attack: all of {method}, per gradient",
                1e3 * seconds,
                attack_flops / seconds / 1e9,
                peak,
            )
            for method, seconds in whole.items()
        ),
    ]


def seconds_per_gradient(network, images, targets, method: str) -> float:
    start = time.perf_counter()
    result = minimum_distortion(network, images, targets, method=method)
    return (time.perf_counter() - start) / result.gradient_evaluations.sum().item()


def row(network: str, phase: str, milliseconds: float, rate: float, peak: float) -> dict:
    return {
        "network": network,
        "phase": phase,
        "ms": f"{milliseconds:.4g}",
        "GFLOP/s": f"{rate:.1f}",
        "of matrix product %": f"{100 * rate / peak:.0f}",
    }


def count_flops(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def typical_seconds(work, repetitions: int = 5) -> float:
    """The median of a few timed repetitions after one that is not timed."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
