"""Compare a GPU with one core: python benchmarks/gpu.py

The fully connected and the convolutional network of Table 1 are trained briefly: by 100 iterations of L-BFGS,
or by one epoch of minibatches. Then they are attacked. One core and the GPU of the same machine both do this.
The seconds of training are those of the whole, with the copy of the images to the GPU. The seconds of attack
and refinement are for one image. The GPU attacks more images, because it takes all at once. Mean distortions
are compared over the images that both attacked. The images are those of results/data.h5:

    snakemake --cores 1 results/data.h5
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pandas as pd
import torch
import yaml
from torch import Tensor, nn

from blindspots.attack.core import minimum_distortion, refine
from blindspots.config.loading import validated
from blindspots.config.networks import Trained
from blindspots.networks import architectures
from blindspots.steps import image_sets
from blindspots.training import convergence, minibatches

DATA = Path("results/data.h5")
# The number of images for the core and for the GPU.
ATTACKED = {"N100_100_10": (1000, 20000), "Conv": (200, 5000)}
ITERATIONS = 100


def main() -> int:
    if not torch.cuda.is_available() or not DATA.exists():
        print(f"This needs a CUDA device and {DATA}: see the top of this program.", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    config = validated(yaml.safe_load(Path("config/config.yaml").read_text()))
    rows = [
        row for name, counts in ATTACKED.items() for row in compared(name, config.networks[name], *counts)
    ]
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def compared(name: str, trained: Trained, few: int, many: int):
    """Rows with the seconds of the core and of the GPU."""
    images, labels = image_sets.read(DATA, "train")
    images, labels = torch.from_numpy(images), torch.from_numpy(labels).long()
    for device in ("cpu", "cuda", "cuda"):  # the GPU twice: its first run warms it up
        network = architectures.build(trained.definition(), images[0].shape)
        architectures.initialise(network, torch.Generator().manual_seed(trained.seed))
        network.to(device)
        _, seconds = timed(lambda: train(network, trained, images.to(device), labels.to(device)))  # noqa: B023
        if device == "cpu":
            here, kept = seconds, network
    yield row(name, "training", "", here, seconds)

    network = architectures.frozen(kept)
    results = {}
    for device, count in (("cpu", few), ("cuda", few), ("cuda", many)):
        network.to(device)
        x, truth = images[:count].to(device), labels[:count].to(device)
        targets = (truth + 1) % 10
        batch = 500 if device == "cpu" else None
        found, seconds = timed(lambda: minimum_distortion(network, x, targets, method="lbfgs", batch=batch))  # noqa: B023
        near, more = timed(lambda: refine(network, x, found.images, targets))  # noqa: B023
        results[device, count] = found, near, seconds / count, more / count
    there = results["cuda", many]
    for i, step in enumerate(("attack", "refinement")):
        here = results["cpu", few]
        means = [
            results[key][i].distortion[:few].double().nanmean().item()
            for key in (("cpu", few), ("cuda", few))
        ]
        yield row(name, step, f"{means[1] / means[0] - 1:+.1e}", here[2 + i], there[2 + i])


def train(network: nn.Module, trained: Trained, images: Tensor, labels: Tensor) -> None:
    if trained.minibatches:
        options = trained.minibatches.model_dump() | {"epochs": 1}
        minibatches.fit(network, images, labels, weight_decay=trained.weight_decay, **options, seed=0)
    else:
        options = {"method": "full_batch", "max_iterations": ITERATIONS}
        convergence.fit(network, images, labels, weight_decay=trained.weight_decay, **options)


def timed(work):
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def row(network: str, step: str, difference: str, here: float, there: float) -> dict:
    return {
        "network": network,
        "step": step,
        "core s": f"{here:.3g}",
        "GPU s": f"{there:.3g}",
        "ratio": f"{here / there:.1f}",
        "difference": difference,
    }


if __name__ == "__main__":
    raise SystemExit(main())
