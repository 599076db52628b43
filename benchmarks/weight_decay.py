"""Test which reading of the weight decay reproduces the paper's softmax rows.

    python benchmarks/weight_decay.py

It trains softmax1 to softmax3 of Table 1 on all 60,000 images with each convention. It prints their errors
beside the paper's. The default in config/config.yaml is the nearest convention. The run takes some minutes.
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from blindspots.networks import architectures
from blindspots.networks.evaluation import classify
from blindspots.steps import image_sets
from blindspots.training import convergence
from blindspots.training.total_loss import DECAY_DIVISORS

DATA = Path("results/data.h5")
PAPER = {"softmax1": (1e-4, 6.7, 7.4), "softmax2": (1e-2, 10, 9.4), "softmax3": (1.0, 21.2, 20)}


def main() -> int:
    if not DATA.exists():
        print(f"{DATA} is missing: run snakemake --cores 1 {DATA} first.", file=sys.stderr)
        return 1
    train, test = (
        [torch.from_numpy(array) for array in image_sets.read(DATA, part)] for part in ("train", "test")
    )
    rows = []
    for convention in DECAY_DIVISORS:
        for name, (rate, paper_train, paper_test) in PAPER.items():
            network = architectures.fully_connected([784], [10], "sigmoid")
            architectures.initialise(network, torch.Generator().manual_seed(0))
            result = convergence.fit(
                network, train[0], train[1].long(), weight_decay=[rate], decay_convention=convention
            )
            errors = [100 * (classify(network, x) != y).double().mean().item() for x, y in (train, test)]
            rows.append(
                {
                    "convention": convention,
                    "network": name,
                    "training error %": f"{errors[0]:.2f}",
                    "paper's": paper_train,
                    "test error %": f"{errors[1]:.2f}",
                    "paper's ": paper_test,
                    "gradients": round(result.history[-1].evaluations),
                }
            )
            print(rows[-1], file=sys.stderr)
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
