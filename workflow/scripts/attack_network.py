"""Make the nearest adversarial example of each image in a shard against one network.

It uses the paper's procedure (Section 4.1).
"""

import copy

import numpy as np
import torch

from blindspots.attack import targets
from blindspots.attack.core import minimum_distortion
from blindspots.attack.penalty import LBFGS
from blindspots.networks.evaluation import classify
from blindspots.parallel.workers import can_fork
from blindspots.steps import image_sets, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.device import prepare
from blindspots.steps.examples import PRECISIONS, example_arrays
from blindspots.steps.step import Progress, Step, StepError, log, run

_BLOCKS = 50, 1000  # images classified at a time until there are enough: the first and the largest number


def body(step: Step) -> None:
    """Attack the network and write the adversarial examples.

    Args:
        step: The run. Its inputs are `data`, `network` and `targets`. The file `targets` is used only if the
            setting `target` is "given". The other settings are `images` (the set), `sample`, `shard`,
            `correct_only`, `classes`, `seed`, `lbfgs` (options), `margin`, `precision`, `batch` and `device`.
    Raises:
        StepError: If the targets do not fit the images, if every image has the target class as its label, or
            if there are fewer images than shards.
    """
    settings = step.settings
    device = prepare(step, settings["device"])
    network = trained_networks.read(step.input("network")).to(device)
    labels = image_sets.read_labels(step.input("data"), settings["images"])
    if settings["correct_only"]:
        sample = _correct(step, network, labels, device)
    else:
        sample = image_sets.sample(len(labels), **settings["sample"])
    index = image_sets.shard(sample, settings["shard"])
    originals = image_sets.read(step.input("data"), settings["images"], index)
    match settings["target"]:
        case "random":
            target = _random(step, network, labels, device)[index].to(device)
        case "given":
            target = _given(step, labels)[index].to(device)
        case int(one):
            target = torch.full((len(index),), one, device=device)
        case policy:
            target = policy
    precision = PRECISIONS[settings["precision"]]
    result = minimum_distortion(
        copy.deepcopy(network).to(precision),
        torch.from_numpy(originals.pixels).to(device, precision),
        target,
        labels=torch.from_numpy(originals.labels).long().to(device),
        method=LBFGS(**settings["lbfgs"], rounded=True),
        margin=settings["margin"],
        batch=settings["batch"] if device.type == "cpu" else None,
        threads=step.threads,
        processes=can_fork(),
        report=Progress(),
    )
    c = Array(result.c.cpu(), "(n,) the penalty weight that it was found with")
    step.write(example_arrays(network, settings["images"], index, originals, result) | {"c": c})


def _correct(step: Step, network, labels: np.ndarray, device: torch.device) -> np.ndarray:
    """The sorted indices of a random sample of images that the network classifies correctly.

    Images whose label is the one target class are left out. The sample has the number of images that the
    settings ask for, or fewer if there are not as many.

    Raises:
        StepError: If every image has the target class as its label.
    """
    settings = step.settings
    size, seed = settings["sample"]["size"], settings["sample"]["seed"]
    found: list[int] = []
    others = np.ones(len(labels), dtype=bool)
    if isinstance(settings["target"], int):
        others = labels != settings["target"]
    if not others.any():
        raise StepError(
            f"attack.target: {settings['target']} is the label of every image: choose another class"
        )
    order = np.random.default_rng(seed).permutation(np.flatnonzero(others))
    wanted, (count, most) = len(order) if size == "all" else size, _BLOCKS
    while len(order) and len(found) < wanted:
        block, order, count = order[:count], order[count:], min(2 * count, most)
        originals = image_sets.read(step.input("data"), settings["images"], block)
        predicted = classify(network, torch.from_numpy(originals.pixels).to(device)).cpu().numpy()
        found.extend(block[predicted == originals.labels])
    log.info("%d images that are classified correctly, as they are asked for: %s", len(found), size)
    return np.sort(found[:wanted])


def _random(step: Step, network, labels: np.ndarray, device: torch.device) -> torch.Tensor:
    """A random target for every image of the set, (n,).

    The target of an image must not depend on the sample or on the shard.
    """
    settings = step.settings
    predicted = truth = torch.from_numpy(labels.astype(np.int64))
    if not settings["correct_only"]:
        pixels = image_sets.read(step.input("data"), settings["images"]).pixels
        predicted = classify(network, torch.from_numpy(pixels).to(device)).cpu()
    return targets.random_targets(truth, predicted, settings["classes"], settings["seed"])


def _given(step: Step, labels: np.ndarray) -> torch.Tensor:
    """The targets (n,) that a text file lists, one class a line for every image of the set."""
    path = step.input("targets")
    try:
        given = np.loadtxt(path, dtype=np.int64, ndmin=1)
    except (OSError, ValueError) as error:
        raise StepError(
            f"attack.given_targets: {path} is not a text file with one class a line: {error}"
        ) from error
    if given.shape != labels.shape or not ((given >= 0) & (given < step.settings["classes"])).all():
        raise StepError(
            f"attack.given_targets: {path} needs {len(labels)} classes below {step.settings['classes']}"
        )
    if (given == labels).any():
        raise StepError(
            f"attack.given_targets: {path} gives image {np.argmax(given == labels)} its own label as target"
        )
    return torch.from_numpy(given)


def main(argv=None) -> int:
    return run(body, "scripts.attack_network", ("data", "network", "targets"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
