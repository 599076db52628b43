"""Make the nearest adversarial example for each image of a shard against one network, by the paper's procedure."""

import numpy as np
import torch

from blindspots import datasets, networks, targets
from blindspots.artifacts import Dataset
from blindspots.attack import minimum_distortion
from blindspots.device import prepare
from blindspots.evaluation import classify
from blindspots.examples import layout
from blindspots.penalty import LBFGS
from blindspots.step import Progress, Step, StepError, run


def body(step: Step) -> None:
    settings = step.settings
    device = prepare(step, settings["device"])
    network = networks.read(step.input("network")).to(device)
    everything = datasets.read(step.input("data"), settings["images"])
    index = datasets.shard(datasets.sample(len(everything.labels), **settings["sample"]), settings["shard"])
    originals = datasets.Images(*(values[index] for values in everything))
    match settings["target"]:
        case "random":
            target = _random(network, everything, settings, device)[index].to(device)
        case "given":
            target = _given(step, everything.labels)[index].to(device)
        case policy:
            target = policy
    result = minimum_distortion(
        network,
        torch.from_numpy(originals.pixels).to(device),
        target,
        labels=torch.from_numpy(originals.labels).long().to(device),
        method=LBFGS(**settings["lbfgs"]),
        margin=settings["margin"],
        batch=settings["batch"] if device.type == "cpu" else None,
        report=Progress(),
    )
    c = Dataset(result.c.cpu(), "(n,) the penalty weight that it was found with")
    step.write(layout(network, settings["images"], index, originals, result) | {"c": c})


def _random(network, everything: datasets.Images, settings: dict, device: torch.device) -> torch.Tensor:
    """A target for every image of the set, so that an image's does not depend on the sample or the shard."""
    labels = torch.from_numpy(everything.labels).long()
    predicted = classify(network, torch.from_numpy(everything.pixels).to(device)).cpu()
    return targets.random_targets(labels, predicted, settings["classes"], settings["seed"])


def _given(step: Step, labels: np.ndarray) -> torch.Tensor:
    path = step.input("targets")
    try:
        given = np.loadtxt(path, dtype=np.int64, ndmin=1)
    except (OSError, ValueError) as error:
        raise StepError(f"attack.given_targets: {path} is not a text file with one class a line: {error}") from error
    if given.shape != labels.shape or not ((given >= 0) & (given < step.settings["classes"])).all():
        raise StepError(f"attack.given_targets: {path} needs {len(labels)} classes below {step.settings['classes']}")
    if (given == labels).any():
        raise StepError(f"attack.given_targets: {path} gives image {np.argmax(given == labels)} its own label as target")
    return torch.from_numpy(given)


def main(argv=None) -> int:
    return run(body, "scripts.attack", ("data", "network", "targets"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
