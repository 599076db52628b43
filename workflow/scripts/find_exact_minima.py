"""Compute the exact minimum of the distortion for every image against a linear network.

The images and the target classes are those of the network's attack.
"""

import torch

from blindspots.attack.core import NOT_FOUND, Adversarial
from blindspots.attack.exact import exact_linear
from blindspots.solvers.box_lbfgs import CONVERGED
from blindspots.steps import artifacts, image_sets, trained_networks
from blindspots.steps.device import prepare
from blindspots.steps.examples import example_arrays
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    """Compute the exact minima and write them as adversarial examples.

    Args:
        step: The run. Its inputs are `data`, `network` and `adversarial` (images and targets of the attack).
            Its settings are `images` (the set), `margin` and `device`.
    """
    settings = step.settings
    device = prepare(step, settings["device"])
    network = trained_networks.read(step.input("network")).to(device)
    with artifacts.read(step.input("adversarial")) as file:
        index, target = file["index"][()], torch.from_numpy(file["target"][()]).long().to(device)
    originals = image_sets.read(step.input("data"), settings["images"], index)
    x = torch.from_numpy(originals.pixels).to(device)
    exact = exact_linear(network, x, target, margin=settings["margin"])
    result = Adversarial(
        images=exact.images.to(x),
        targets=target,
        success=exact.success,
        distortion=exact.distortion,
        c=torch.full_like(exact.distortion, torch.nan),
        residual=exact.gap / exact.distortion,
        gradient_evaluations=torch.zeros_like(target),
        status=torch.where(exact.success, CONVERGED, NOT_FOUND),
    )
    step.write(example_arrays(network, settings["images"], index, originals, result))


def main(argv=None) -> int:
    return run(body, "scripts.find_exact_minima", ("data", "network", "adversarial"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
