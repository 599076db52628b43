"""Compare our minimum-distortion attack with public ones: python benchmarks/attack.py > attack.md

All attacks get the same networks, images and targets in one run. A linear classifier and a small
convolutional network are trained here. M1 and, for photographs, EfficientNetLite0 come from the finished run
in results/. Every attack runs in its own process. Success, distortion, gradients and memory are measured
outside the attacks, in the same way for all. Markdown tables go to stdout, progress to stderr.
envs/benchmark.txt says how to install the public attacks.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blindspots.attack.core import minimum_distortion, refine
from blindspots.attack.exact import exact_linear
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP
from blindspots.config.loading import validated
from blindspots.config.types import PICTURES
from blindspots.networks import architectures
from blindspots.steps import image_sets, trained_networks
from blindspots.training import convergence

try:
    import peers
except ModuleNotFoundError as error:
    raise SystemExit(
        f"{error.name} is missing: the head of envs/benchmark.txt says how to install the peers."
    ) from error

DATA, M1 = Path("results/data.h5"), Path("results/networks/M1.h5")
NETWORKS = ("softmax", "M1", "cnn")
PHOTOGRAPHS, PRETRAINED = Path("results/pictures.h5"), Path("results/networks/EfficientNetLite0.h5")
TABLES = ("targeted", "untargeted", "throughput", "photographs")
TRAINING_IMAGES = 30_000
THROUGHPUT_IMAGES = 2000
BATCHES = (32, 64, 125, 250, 500, 1000, 2000, None)  # None: the attack chooses
OURS = {"ours, lbfgs": "lbfgs", "ours, sqp": "sqp"}

# Each attack starts in a fresh process. It is forked from one that has already imported the slow packages.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["adv_lib.attacks", "foolbox", "botorch.optim.batched_lbfgs_b", "blindspots.training.convergence"]
)

Attack = Callable[[nn.Module, Tensor, Tensor, bool], Tensor]


def ours(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    targeted: bool,
    *,
    method: str | SQP = "sqp",
    batch: int | None = None,
    threads: int = 1,
) -> Tensor:
    targets = classes if targeted else "nearest"
    return minimum_distortion(model, images, targets, method=method, batch=batch, threads=threads).images


def exact(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    # The margin is that of our attack. On the boundary itself, the rounding of float32 would decide.
    return exact_linear(model, images, classes if targeted else None, margin=1e-4).images


def as_configured(
    model: nn.Module, images: Tensor, classes: Tensor, targeted: bool, *, refined: bool
) -> Tensor:
    """Attack as the workflow attacks photographs: by the paper's procedure and then by the refinement."""
    options = validated(yaml.safe_load(Path("config/config.yaml").read_text())).attack_on(PICTURES)
    method = LBFGS(**options.lbfgs.model_dump())
    found = minimum_distortion(model, images, classes, method=method, batch=options.batch).images
    if not refined:
        return found
    return refine(
        model, images, found, classes, method=SQP(**options.sqp.model_dump()), batch=options.batch
    ).images


class Method(NamedTuple):
    attack: Attack
    cap: int | None = None  # the largest number of images, for slow attacks
    networks: tuple[str, ...] = NETWORKS


METHODS: dict[str, dict[str, Method]] = {
    "targeted": {
        "exact": Method(exact, networks=("softmax",)),
        **{label: Method(partial(ours, method=method)) for label, method in OURS.items()},
        "ours, sqp without exploration": Method(partial(ours, method=SQP(exploration=0))),
        "SciPy L-BFGS-B, c‖r‖": Method(partial(peers.scipy_lbfgsb, power=1), cap=50),
        "SciPy L-BFGS-B, c‖r‖²": Method(partial(peers.scipy_lbfgsb, power=2), cap=50),
        "BoTorch L-BFGS-B, c‖r‖": Method(partial(peers.botorch_lbfgsb, power=1), cap=50),
        "BoTorch L-BFGS-B, c‖r‖²": Method(partial(peers.botorch_lbfgsb, power=2), cap=50),
        "adv-lib DDN, 100 steps": Method(partial(peers.ddn, steps=100)),
        "adv-lib DDN, 1000 steps": Method(partial(peers.ddn, steps=1000)),
        "adv-lib DDN, 1000 steps, not rounded": Method(partial(peers.ddn, steps=1000, levels=None)),
        "adv-lib PDGD, 500 steps": Method(peers.pdgd),
        "adv-lib ALMA, 500 steps": Method(partial(peers.alma, steps=500)),
        "adv-lib ALMA, 1000 steps": Method(peers.alma),
        "adv-lib FMN, 1000 steps": Method(partial(peers.fmn, steps=1000)),
        "adv-lib C&W, 9 × 1000 steps": Method(peers.cw, cap=100),
        "Foolbox DDN, 100 steps": Method(peers.foolbox_ddn),
        "Foolbox DDN, 1000 steps": Method(partial(peers.foolbox_ddn, steps=1000)),
        "Foolbox FMN, 1000 steps": Method(partial(peers.foolbox_fmn, steps=1000)),
        "Foolbox C&W, 9 × 1000 steps": Method(peers.foolbox_cw, cap=100),
    },
    "untargeted": {
        "exact": Method(exact, networks=("softmax",)),
        **{label: Method(partial(ours, method=method)) for label, method in OURS.items()},
        "ours, sqp without exploration": Method(partial(ours, method=SQP(exploration=0))),
        "adv-lib DeepFool": Method(peers.deepfool),
        "adv-lib SuperDeepFool": Method(peers.superdeepfool),
        "adv-lib FAB, 100 steps": Method(peers.fab),
        "adv-lib DDN, 100 steps": Method(partial(peers.ddn, steps=100)),
        "adv-lib DDN, 1000 steps": Method(partial(peers.ddn, steps=1000)),
        "adv-lib PDGD, 500 steps": Method(peers.pdgd),
        "adv-lib ALMA, 1000 steps": Method(peers.alma),
        "adv-lib FMN, 1000 steps": Method(partial(peers.fmn, steps=1000)),
        "adv-lib C&W, 9 × 1000 steps": Method(peers.cw, cap=100),
        "Foolbox DeepFool": Method(peers.foolbox_deepfool),
        "Foolbox DDN, 1000 steps": Method(partial(peers.foolbox_ddn, steps=1000)),
    },
    "photographs": {
        "ours, lbfgs": Method(partial(as_configured, refined=False), networks=(PRETRAINED.stem,)),
        "ours, sqp": Method(partial(as_configured, refined=True), networks=(PRETRAINED.stem,)),
        "adv-lib DDN, 100 steps": Method(
            partial(peers.ddn, steps=100, levels=None), networks=(PRETRAINED.stem,)
        ),
        "adv-lib DDN, 1000 steps": Method(
            partial(peers.ddn, steps=1000, levels=None), networks=(PRETRAINED.stem,)
        ),
    },
}


class Problem(NamedTuple):
    """A network, images that it classifies correctly, and another class for each as target."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor
    test_error: float  # on all test images


class Measured(NamedTuple):
    distance: np.ndarray  # (n,) ‖r‖₂, NaN without success
    outside: float  # the largest amount by which a pixel leaves [0, 1]
    gradients: float  # for each image
    forwards: float  # for each image, passes without a gradient
    milliseconds: float  # for each image, CPU time: steadier than the clock on a machine with other work
    mebibytes: float  # the peak of memory, minus the peak before the attack


def main() -> int:
    options = arguments()
    needed = {DATA: "make table4", M1: "make table4"}
    if "photographs" in options.tables:
        needed |= dict.fromkeys((PHOTOGRAPHS, PRETRAINED), "snakemake --cores all results/figure5.csv")
    for path, command in needed.items():
        if not path.exists():
            print(f"{path} is missing: run {command} first.", file=sys.stderr)
            return 1
    for library in ("OMP", "OPENBLAS"):  # for SciPy and NumPy, as PyTorch's setting does not apply
        os.environ[f"{library}_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            problem = Path(folder) / name
            error = in_own_process(save_problem, problem, name, max(options.images, THROUGHPUT_IMAGES))
            for table in options.tables:
                if table == "throughput":
                    if name == "M1":
                        print(f"\n## {name}: images a second by batch size, {THROUGHPUT_IMAGES} images\n")
                        print(markdown(throughput(problem)), flush=True)
                    continue
                if table in ("targeted", "untargeted"):
                    results = measure_all(problem, name, table, options)
                    print(f"\n## {name} ({error:.1f} % test error), {table}\n")
                    print(markdown(summary(results)), flush=True)
        if "photographs" in options.tables:
            problem = Path(folder) / "photographs"
            in_own_process(save_photographs, problem)
            print(f"\n## {PRETRAINED.stem}, photographs, every target an ostrich\n")
            print(
                markdown(summary(measure_all(problem, PRETRAINED.stem, "photographs", options))), flush=True
            )
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="an attack (default 1000); slow attacks take fewer"
    )
    parser.add_argument("--threads", type=int, default=1, help="in the tables of attacks (default 1)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument(
        "--methods", nargs="+", default=[""], help="beside ours: those with one of these in the name"
    )
    return parser.parse_args()


def in_own_process(work: Callable, *values: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
        return pool.submit(work, *values).result()


# The networks


def save_problem(path: Path, name: str, count: int) -> float:
    """Save the `Problem` with the first `count` test images that the network classifies correctly.

    It returns the network's test error in %.
    """
    torch.set_num_threads(1)
    network = trained_networks.read(M1) if name == "M1" else architectures.frozen(TRAINED[name]())
    pixels, classes = image_sets.read(DATA, "test")
    images, labels = torch.from_numpy(pixels), torch.from_numpy(classes).long()
    correct = network(images).argmax(1) == labels
    error = 100 * (~correct).double().mean().item()
    first = correct.nonzero().squeeze(1)[:count]
    labels = labels[first]
    others = torch.randint(1, 10, labels.shape, generator=torch.Generator().manual_seed(0))
    torch.save(Problem(network, images[first], labels, (labels + others) % 10, error), path)
    return error


def save_photographs(path: Path) -> None:
    network = trained_networks.read(PRETRAINED)
    pixels, classes = image_sets.read(PHOTOGRAPHS, PICTURES)
    images, labels = torch.from_numpy(pixels), torch.from_numpy(classes.astype(np.int64))
    correct = network(images).argmax(1) == labels
    targets = torch.full_like(labels, 9)
    torch.save(Problem(network, images[correct], labels[correct], targets[correct], np.nan), path)


def softmax() -> nn.Module:
    network = architectures.fully_connected([784], [10], "sigmoid")
    architectures.initialise(network, torch.Generator().manual_seed(0))
    convergence.fit(network, *training_images(), weight_decay=[1e-4], max_iterations=150)
    return network


def cnn(epochs: int = 2, batch: int = 100) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 8, 5, stride=2), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    images, labels = training_images()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(batch):
            optimiser.zero_grad()
            cross_entropy(network(images[rows]), labels[rows]).backward()
            optimiser.step()
    return network


TRAINED = {"softmax": softmax, "cnn": cnn}


def training_images() -> tuple[Tensor, Tensor]:
    images, labels = image_sets.read(DATA, "train", slice(TRAINING_IMAGES))
    return torch.from_numpy(images), torch.from_numpy(labels).long()


# Measuring


class Counted(nn.Module):
    """A network that counts its input images: those with a gradient, and those without one."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.gradients = self.forwards = 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        rows = len(logits)
        self.forwards += rows
        if logits.requires_grad:
            first = True

            def count(gradient: Tensor) -> None:
                nonlocal first
                self.gradients += rows
                self.forwards -= rows if first else 0
                first = False

            logits.register_hook(count)
        return logits


def measure_all(problem: Path, network: str, table: str, options: argparse.Namespace) -> dict[str, Measured]:
    results = {}
    for label, method in METHODS[table].items():
        wanted = label in OURS or any(part in label for part in options.methods)
        if not wanted or network not in method.networks:
            continue
        print(f"{network}, {table}: {label} ", end="", file=sys.stderr, flush=True)
        try:
            results[label] = in_own_process(measure, problem, table, label, options.images, options.threads)
        except Exception as error:
            if label in OURS:
                raise
            print(f"failed: {error!r}", file=sys.stderr)
        else:
            print(f"{results[label].milliseconds:.2f} CPU ms an image", file=sys.stderr)
    return results


def measure(path: Path, table: str, label: str, images: int, threads: int) -> Measured:
    torch.set_num_threads(threads)
    method, targeted = METHODS[table][label], table != "untargeted"
    problem: Problem = torch.load(path, weights_only=False)
    n = min(images, len(problem.images), method.cap or images)
    x = problem.images[:n].clone()
    classes = (problem.targets if targeted else problem.labels)[:n].clone()
    model = Counted(problem.network).eval()

    one_gradient(problem.network, x[:2])  # PyTorch's setup at its first gradient is not counted
    before, start = peak_memory(), time.process_time()
    adversarial = method.attack(model, x.clone(), classes, targeted)
    seconds, memory = time.process_time() - start, peak_memory() - before

    adversarial = adversarial.detach().float()
    with torch.no_grad():
        answer = problem.network(adversarial).argmax(1)
    success = answer == classes if targeted else answer != classes
    distance = (adversarial.double() - x.double()).flatten(1).norm(dim=1)
    return Measured(
        torch.where(success, distance, torch.nan).numpy(),
        max(0.0, -adversarial.min().item(), adversarial.max().item() - 1),
        model.gradients / n,
        model.forwards / n,
        1e3 * seconds / n,
        memory,
    )


def one_gradient(network: nn.Module, images: Tensor) -> None:
    images = images.clone().requires_grad_()
    torch.autograd.grad(network(images).sum(), images)


def peak_memory() -> float:
    """The peak of the process's memory in MiB. Linux reports KiB, macOS reports bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def throughput(problem: Path) -> list[dict[str, str]]:
    rows = []
    for batch in BATCHES:
        row = {"batch": str(batch or "chosen")}
        for label in OURS:
            for threads in (1, 2):
                rate = in_own_process(images_per_second, problem, label, batch, threads)
                row[f"{label}, {threads} thread{'s'[: threads - 1]}"] = f"{rate:.0f}"
        print(f"throughput: {row}", file=sys.stderr)
        rows.append(row)
    return rows


def images_per_second(path: Path, label: str, batch: int | None, threads: int) -> float:
    problem: Problem = torch.load(path, weights_only=False)
    images, targets = problem.images[:THROUGHPUT_IMAGES], problem.targets[:THROUGHPUT_IMAGES]
    one_gradient(problem.network, images[:2])
    start = time.perf_counter()
    ours(problem.network, images, targets, True, method=OURS[label], batch=batch, threads=threads)
    return len(images) / (time.perf_counter() - start)


# Tables


def summary(results: dict[str, Measured]) -> list[dict[str, str]]:
    """One row for each method.

    `ours, ... on these` is the mean of our attack on the images of the row on which the method succeeds.
    `mean where all succeed` is over the images on which certain methods all succeed. These are the methods
    that take all images and succeed on at least 99 % of them. The column is left out if it covers every
    image.
    """
    largest = max(len(result.distance) for result in results.values())
    full = {
        label: result.distance
        for label, result in results.items()
        if len(result.distance) == largest and np.isnan(result.distance).mean() <= 0.01
    }
    common = ~np.isnan(np.stack(list(full.values()))).any(axis=0)
    rows = []
    for label, result in results.items():
        found = ~np.isnan(result.distance)
        row = {
            "method": label,
            "n": str(len(found)),
            "success %": f"{100 * found.mean():.4g}",
            "mean L2": number(np.mean, result.distance[found]),
            "median": number(np.median, result.distance[found]),
        }
        if not common.all():
            row["mean where all succeed"] = number(np.mean, result.distance[common] if label in full else ())
        for name in OURS:
            row[f"{name} on these"] = number(np.nanmean, results[name].distance[: len(found)][found])
        row |= {
            "outside [0, 1]": f"{result.outside:.1g}",
            "gradients": f"{result.gradients:.0f}",
            "forward only": f"{result.forwards:.0f}",
            "CPU ms": f"{result.milliseconds:.2f}",
            "peak MiB": f"{result.mebibytes:.0f}",
        }
        rows.append(row)
    return rows


def number(average: Callable[[Sequence[float]], float], distances: Sequence[float]) -> str:
    return f"{average(distances):.4f}" if len(distances) else "–"


def markdown(rows: list[dict[str, str]]) -> str:
    align = ["left", *["right"] * (len(rows[0]) - 1)]
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, colalign=align)


if __name__ == "__main__":
    raise SystemExit(main())
