"""Find the images that stimulate single units and random directions of a layer most (Section 3).

It also measures how alike these images are. It does so for the network and for the same network untrained.
There are as many random directions as active units. A second comparison uses the axes of a rotated space.
Like the units, these axes are at right angles.
"""

from pathlib import Path

import numpy as np
import torch

from blindspots.analysis import units
from blindspots.networks import architectures
from blindspots.steps import image_sets, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.device import prepare
from blindspots.steps.step import Step, StepError, log, run

_THUMBNAIL = 64  # pixels of a side: larger images are compared as thumbnails of this size
_BLOCK = 100  # images processed at a time
_MEASURES = {
    "purity": "(m,) the share of the most common class among the images of each row",
    "pixels": "(m,) the mean distance of a row's images, as a multiple of that of all images",
    "features": "(m,) the mean distance of a row's images in the layer, as a multiple of that of all images",
}


def body(step: Step) -> None:
    """Find and compare the images for both networks and write the artifact.

    Args:
        step: The run. Its inputs are `data` and `network`. Its settings are `images` (the set), `layer`,
            `top` (images for each unit), `seed` and `device`.
    Raises:
        StepError: If the set has fewer images than `top`, or if the network has no such layer.
    """
    settings = step.settings
    device = prepare(step, settings["device"])
    labels = image_sets.read_labels(step.input("data"), settings["images"])
    if len(labels) < settings["top"]:
        raise StepError(
            f"units.of, top: {settings['top']} images a row, "
            f"but the {settings['images']} set has {len(labels)}"
        )
    result = {}
    for name, network in _networks(step.input("network"), settings["seed"]).items():
        features, pixels = _seen(step, network.to(device), len(labels), device)
        rows = _rows(name, features, settings)
        # All rows are measured together, because the distances in the whole set take the longest.
        every = np.concatenate(list(rows.values()))
        measured = (
            units.purity(labels, every),
            units.spread(pixels, every),
            units.spread(features.numpy(), every),
        )
        for (kind, own), end in zip(rows.items(), np.cumsum(list(map(len, rows.values()))), strict=True):
            result[f"{name}/{kind}/rows"] = Array(
                own, "(m, top) places in the set of the images that have most of it"
            )
            for (measure, meaning), values in zip(_MEASURES.items(), measured, strict=True):
                result[f"{name}/{kind}/{measure}"] = Array(values[end - len(own) : end], meaning)
    step.write(result)


def _networks(path: Path, seed: int) -> dict[str, torch.nn.Module]:
    """The trained network, and the same network with new random weights."""
    trained, untrained = trained_networks.read(path), trained_networks.read(path)
    architectures.initialise(untrained, torch.Generator().manual_seed(seed))
    return {"trained": trained, "untrained": untrained}


def _seen(step: Step, network, count: int, device: torch.device) -> tuple[torch.Tensor, np.ndarray]:
    """The layer's outputs φ(x), (n, d), and the pixels, (n, p), of all n images."""
    features, pixels = [], []
    for start in range(0, count, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, count))
        images = torch.from_numpy(image_sets.read(step.input("data"), step.settings["images"], index).pixels)
        try:
            found = units.features(network, images.to(device), step.settings["layer"])
        except ValueError as error:
            raise StepError(f"units.of, layer: {error}") from error
        features.append(found.cpu())
        if images.shape[-1] > _THUMBNAIL:
            images = torch.nn.functional.adaptive_avg_pool2d(images, _THUMBNAIL)
        pixels.append(images.flatten(1).numpy())
    return torch.cat(features), np.concatenate(pixels)


def _rows(name: str, features: torch.Tensor, settings: dict) -> dict[str, np.ndarray]:
    """The places in the set of the images that stimulate each unit or direction most, (m, top), by kind."""
    alive, width = units.active_units(features, settings["top"]), features.shape[1]
    log.info("%s: %d of %d units are active for %d images or more", name, alive.sum(), width, settings["top"])
    directions = {
        "directions": units.random_directions(width, int(alive.sum()), settings["seed"]),
        "rotation": units.rotation(width, settings["seed"] + 1),
    }
    every = {"units": units.largest(features[:, alive], None, settings["top"])}
    return every | {kind: units.largest(features, v, settings["top"]) for kind, v in directions.items()}


def main(argv=None) -> int:
    return run(body, "scripts.inspect_units", ("data", "network"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
