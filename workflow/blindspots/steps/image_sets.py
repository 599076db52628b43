"""Images as the programs use them: float32 pixels in [0, 1], as the paper scales them; photographs have three colours."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from blindspots.steps import artifacts
from blindspots.steps.step import StepError


class Images(NamedTuple):
    pixels: np.ndarray  # (n, height, width) or (n, 3, height, width) float32 in [0, 1]
    labels: np.ndarray  # (n,) integers


def read(path: Path, part: str, indices: np.ndarray | slice = slice(None)) -> Images:
    """Images of a part of a data artifact, all or those of the given indices."""
    with artifacts.read(path) as file:
        stored, labels = file[f"{part}/images"], file[f"{part}/labels"][()]
        if stored.ndim == 4 and not isinstance(
            indices, slice
        ):  # photographs are too large to read all for a few
            pixels = np.empty((len(indices), *stored.shape[1:]), stored.dtype)
            for place, index in enumerate(indices):
                pixels[place] = stored[index]
        else:
            pixels = stored[()][indices]
    scaled = pixels.astype(np.float32)
    scaled /= 255
    return Images(scaled, labels[indices])


def read_labels(path: Path, part: str) -> np.ndarray:
    """The (n,) classes of a part's images."""
    with artifacts.read(path) as file:
        return file[f"{part}/labels"][()]


def read_split(path: Path, name: str) -> np.ndarray | slice:
    """The indices of a split of the training images; `train` is all of them."""
    if name == "train":
        return slice(None)
    with artifacts.read(path) as file:
        return file[name][()]


def sample(images: int, size: int | str, seed: int) -> np.ndarray:
    """The sorted indices of a random sample, or of all images for the size "all" or where there are no more."""
    if size == "all" or size >= images:
        return np.arange(images)
    return np.sort(np.random.default_rng(seed).choice(images, size, replace=False))


def shard(values: np.ndarray, name: str) -> np.ndarray:
    """One of the nearly equal parts of (n, ...) values, in their order; `3-of-6` is the third of six.

    Raises StepError if there are fewer values than parts.
    """
    number, total = map(int, name.split("-of-"))
    if len(values) < total:
        raise StepError(
            f"{len(values)} images do not make {total} shards: raise attack.images_per_job, or have more images"
        )
    return np.array_split(values, total)[number - 1]
