"""Make the nearest adversarial example for every image of a set against one network."""

import h5py
import numpy as np
import torch

from blindspots import attack, datasets, networks, targets
from blindspots.artifacts import Dataset
from blindspots.device import prepare
from blindspots.distortions import distortion
from blindspots.evaluation import classify, logits
from blindspots.step import Progress, Step, StepError, log, run


def body(step: Step) -> None:
    settings = step.settings
    device = prepare(step, settings["device"])
    network = networks.read(step.input("network")).to(device)
    originals, labels = datasets.read(step.input("data"), settings["images"])
    index = datasets.sample(len(originals), **settings["sample"])
    x = torch.from_numpy(originals[index]).to(device)
    y = torch.from_numpy(labels[index]).long().to(device)
    predicted = classify(network, x)
    options = settings["search"] | {"report": Progress()}
    match settings["target"]:
        case "random":
            everywhere = targets.random_targets(
                torch.from_numpy(labels).long(),
                classify(network, torch.from_numpy(originals).to(device)).cpu(),
                settings["classes"],
                settings["seed"],
            )
            target = everywhere[torch.from_numpy(index)].to(device)
        case "second":
            target = targets.second_targets(logits(network, x), y)
        case "given":
            target = _given(step, labels)[torch.from_numpy(index)].to(device)
        case "nearest":
            target = None
    if target is None:
        allowed = targets.other_classes(y, predicted, settings["classes"])
        result, target = attack.nearest_distortion(network, x, allowed, **options)
    else:
        result = attack.minimum_distortion(network, x, target, **options)

    # What counts is measured on the returned images, not taken from the attack's own bookkeeping.
    images = result.images.cpu().numpy()
    success = (classify(network, result.images) == target).cpu().numpy()
    size = np.where(success, distortion(originals[index], images), np.nan)
    log.info(
        "found %d of %d, mean distortion %.4f, %.1f gradient evaluations an image; %d images were misclassified before",
        success.sum(),
        len(success),
        np.nanmean(size),
        result.gradient_evaluations.double().mean(),
        (predicted != y).sum(),
    )
    statuses = h5py.enum_dtype({text: code for code, text in attack.STATUS.items()}, basetype=np.uint8)
    step.write(
        {
            "index": Dataset(index, f"(n,) places in the {settings['images']} set"),
            "labels": Dataset(labels[index], "(n,) classes"),
            "predicted": Dataset(_small(predicted), "(n,) what the network says of the original"),
            "target": Dataset(_small(target), "(n,) the target class l"),
            "images": Dataset(images, "(n, height, width) x + r in [0, 1], the original where none was found"),
            "success": Dataset(success, "(n,) the network calls x + r the target"),
            "distortion": Dataset(size, "(n,) root mean square of r, NaN where none was found"),
            "c": Dataset(result.c.cpu(), "(n,) the penalty weight that it was found with"),
            "residual": Dataset(result.residual.cpu(), "(n,) projected gradient relative to the penalty's"),
            "gradient_evaluations": Dataset(result.gradient_evaluations.cpu(), "(n,)"),
            "status": Dataset(_small(result.status).astype(statuses), "(n,) how the search ended, an enumeration"),
        }
    )


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


def _small(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.uint8)


def main(argv=None) -> int:
    return run(body, "scripts.attack", ("data", "network", "targets"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
