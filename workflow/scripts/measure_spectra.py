"""Measure the frame bounds of a network's linear maps (Table 5).

It also measures how far adversarial examples really move the outputs of these maps.
"""

import math

import numpy as np
import torch

from blindspots.analysis.lipschitz import instabilities, linear_maps
from blindspots.networks.evaluation import PIXELS
from blindspots.steps import artifacts, image_sets, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.device import prepare
from blindspots.steps.step import Step, log, run

_SEED = 0  # draws the random vectors from which the iterations for the norms start


def body(step: Step) -> None:
    """Measure the linear maps and write the artifact.

    Args:
        step: The run. Its inputs are `data`, `network` and `examples` (shards of adversarial examples). Its
            setting is `images` (the set).
    """
    prepare(step, "cpu")  # the decomposition is in float64, for which GPUs are slow
    network = trained_networks.read(step.input("network"))
    with artifacts.read(step.input("network")) as file:
        image_shape = tuple(file["image_shape"][()].tolist())
    maps = linear_maps(network, image_shape, _SEED)
    batch = max(1, PIXELS // math.prod(image_shape))
    ratios = {linear.name: [] for linear in maps}
    for path in step.inputs["examples"]:
        with artifacts.read(path) as file:
            index, images, success = file["index"][()], file["images"][()], file["success"][()]
        if not success.any():
            continue
        originals = image_sets.read(step.input("data"), step.settings["images"], index[success]).pixels
        pair = (torch.from_numpy(originals), torch.from_numpy(images[success]))
        for name, values in instabilities(network, list(ratios), *pair, batch).items():
            ratios[name].append(values.numpy())
        log.info("%d images of %s", len(originals), path)
    result = {}
    for linear in maps:
        key = linear.label.lower().replace(". ", "_")
        values = np.concatenate(ratios[linear.name]) if ratios[linear.name] else np.empty(0, np.float32)
        meanings = {
            "name": (linear.name.encode(), "the layer's name in the network"),
            "size": (linear.size.encode(), "of its weights, as Table 5 has it"),
            "lower": (
                linear.bounds.lower,
                "the lowest singular value; of a convolution, with circular padding",
            ),
            "upper": (
                linear.bounds.upper,
                "the largest singular value; of a convolution, with circular padding",
            ),
            "norm": (
                linear.norm,
                "the largest singular value of the map with the padding that it really has",
            ),
            "residual": (linear.residual, "‖Aᵀu - σv‖ of that norm, its error"),
            "lipschitz": (linear.lipschitz, "an upper Lipschitz constant from the image to the map's output"),
            "instability": (values, "(n,) ‖φ(x + r) - φ(x)‖/‖r‖ at the map's output"),
        }
        result |= {f"{key}/{name}": Array(*described) for name, described in meanings.items()}
    step.write(result)


def main(argv=None) -> int:
    return run(body, "scripts.measure_spectra", ("data", "network", "examples"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
