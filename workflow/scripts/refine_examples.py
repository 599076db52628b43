"""Refine the adversarial examples against one network to local minima of the distortion."""

import copy

import torch

from blindspots.attack.core import refine
from blindspots.attack.sqp import SQP
from blindspots.parallel.workers import can_fork
from blindspots.steps import artifacts, image_sets, trained_networks
from blindspots.steps.device import prepare
from blindspots.steps.examples import PRECISIONS, example_arrays
from blindspots.steps.step import Progress, Step, run


def body(step: Step) -> None:
    """Refine the examples and write the artifact.

    Args:
        step: The run. Its inputs are `data`, `network` and `adversarial`. Its settings are `images` (the
            set), `sqp` (options), `margin`, `precision`, `batch` and `device`.
    """
    settings = step.settings
    device = prepare(step, settings["device"])
    network = trained_networks.read(step.input("network")).to(device)
    with artifacts.read(step.input("adversarial")) as file:
        index, images, target = file["index"][()], file["images"][()], file["target"][()]
    originals = image_sets.read(step.input("data"), settings["images"], index)
    precision = PRECISIONS[settings["precision"]]
    result = refine(
        copy.deepcopy(network).to(precision),
        torch.from_numpy(originals.pixels).to(device, precision),
        torch.from_numpy(images).to(device, precision),
        torch.from_numpy(target).long().to(device),
        method=SQP(**settings["sqp"]),
        margin=settings["margin"],
        batch=settings["batch"] if device.type == "cpu" else None,
        threads=step.threads,
        processes=can_fork(),
        report=Progress(),
    )
    step.write(example_arrays(network, settings["images"], index, originals, result))


def main(argv=None) -> int:
    return run(body, "scripts.refine_examples", ("data", "network", "adversarial"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
