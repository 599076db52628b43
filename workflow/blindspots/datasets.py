"""Images as the programs use them: (n, height, width) float32 pixels in [0, 1], as the paper scales them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from blindspots import artifacts
from blindspots.step import StepError


class Images(NamedTuple):
    pixels: np.ndarray  # (n, height, width) float32 in [0, 1]
    labels: np.ndarray  # (n,) uint8


def read(path: Path, part: str, indices: np.ndarray | slice = slice(None)) -> Images:
    """Images of the part `train` or `test` of the data artifact, all or those of the given indices."""
    with artifacts.read(path) as file:
        pixels, labels = file[f"{part}/images"][()], file[f"{part}/labels"][()]
    scaled = pixels[indices].astype(np.float32)
    scaled /= 255
    return Images(scaled, labels[indices])


def read_split(path: Path, name: str) -> np.ndarray | slice:
    """The indices of a split of the training images; `train` is all of them."""
    if name == "train":
        return slice(None)
    with artifacts.read(path) as file:
        return file[name][()]


def sample(images: int, size: int | str, seed: int) -> np.ndarray:
    """The sorted indices of a random sample, or of all images for the size "all". Raises StepError if it is too large."""
    if size == "all":
        return np.arange(images)
    if size > images:
        raise StepError(f"attack.sample: {size} images are more than the {images} of the set: ask for fewer, or for all")
    return np.sort(np.random.default_rng(seed).choice(images, size, replace=False))


def shard(values: np.ndarray, name: str) -> np.ndarray:
    """One of the nearly equal parts of (n, ...) values, in their order; `3-of-6` is the third of six."""
    number, total = map(int, name.split("-of-"))
    return np.array_split(values, total)[number - 1]
