"""Compare the cost of an attack in double and in single precision: python benchmarks/precision.py

The fully connected and the convolutional network of Table 1 are trained briefly. One core then attacks them
in both precisions (`attack.precision`), in turns and twice. The seconds are for one image, the smaller of the
two measurements. The images are those of results/data.h5:

    snakemake --cores 1 results/data.h5
"""

import copy
import sys
import time
from pathlib import Path

import pandas as pd
import torch
import yaml
from gpu import DATA, train

from blindspots.attack.core import minimum_distortion, refine
from blindspots.attack.penalty import LBFGS
from blindspots.config.loading import validated
from blindspots.networks import architectures
from blindspots.steps import image_sets
from blindspots.steps.examples import PRECISIONS

ATTACKED = {"N100_100_10": 1000, "Conv": 300}
BATCH = 500


def main() -> int:
    if not DATA.exists():
        print(f"This needs {DATA}: see the top of this program.", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config = validated(yaml.safe_load(Path("config/config.yaml").read_text()))
    images, labels = image_sets.read(DATA, "train")
    images, labels = torch.from_numpy(images), torch.from_numpy(labels).long()
    rows = []
    for name, count in ATTACKED.items():
        network = architectures.build(config.networks[name].definition(), images[0].shape)
        architectures.initialise(network, torch.Generator().manual_seed(config.networks[name].seed))
        train(network, config.networks[name], images, labels)
        x, targets = images[:count], (labels[:count] + 1) % 10
        taken = {precision: [] for precision in PRECISIONS}
        for precision, dtype in [*PRECISIONS.items()] * 2:
            taken[precision].append(
                seconds(architectures.frozen(copy.deepcopy(network)).to(dtype), x.to(dtype), targets)
            )
        for place, step in enumerate(("attack", "refinement")):
            single, double = (min(times[place] for times in of_both) for of_both in taken.values())
            rows.append(
                {"network": name, "step": step, "single": single, "double": double, "ratio": double / single}
            )
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    return 0


def seconds(network, images, targets) -> tuple[float, float]:
    """Seconds for an image: of the attack by the paper's procedure, and of the refinement from there."""
    start = time.perf_counter()
    found = minimum_distortion(network, images, targets, method=LBFGS(rounded=True), batch=BATCH)
    middle = time.perf_counter()
    refine(network, images, found.images, targets, batch=BATCH)
    return (middle - start) / len(images), (time.perf_counter() - middle) / len(images)


if __name__ == "__main__":
    raise SystemExit(main())
