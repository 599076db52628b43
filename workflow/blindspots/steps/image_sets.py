"""Image sets in the form that the programs use.

Pixels are float32 in [0, 1], as the paper scales them. Photographs have three colours.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from blindspots.steps import artifacts
from blindspots.steps.step import StepError


class Images(NamedTuple):
    """Images with their classes.

    Attributes:
        pixels: The pixels, (n, height, width) or (n, 3, height, width), float32 in [0, 1].
        labels: The classes, (n,), integers.
    """

    pixels: np.ndarray
    labels: np.ndarray


def read(path: Path, part: str, indices: np.ndarray | slice = slice(None)) -> Images:
    """Read images of one part of a data artifact.

    Args:
        path: The data artifact.
        part: The part, such as train or test.
        indices: The places of the images in the part; by default all of them.
    Returns:
        The images and their classes.
    Raises:
        ArtifactError: If the artifact cannot be read or is damaged.
    """
    with artifacts.read(path) as file:
        stored, labels = file[f"{part}/images"], file[f"{part}/labels"][()]
        # Photographs are too large to read all of them for a few.
        if stored.ndim == 4 and not isinstance(indices, slice):
            pixels = np.empty((len(indices), *stored.shape[1:]), stored.dtype)
            for place, index in enumerate(indices):
                pixels[place] = stored[index]
        else:
            pixels = stored[()][indices]
    scaled = pixels.astype(np.float32)
    scaled /= 255
    return Images(scaled, labels[indices])


def read_labels(path: Path, part: str) -> np.ndarray:
    """Read the classes of a part's images.

    Args:
        path: The data artifact.
        part: The part, such as train or test.
    Returns:
        The classes, (n,), integers.
    Raises:
        ArtifactError: If the artifact cannot be read or is damaged.
    """
    with artifacts.read(path) as file:
        return file[f"{part}/labels"][()]


def read_split(path: Path, name: str) -> np.ndarray | slice:
    """Read the indices of a split of the training images.

    Args:
        path: The artifact of the splits. It is not read for `train`.
        name: The name of the split; `train` stands for all training images.
    Returns:
        The indices, (n,), or the slice of all images.
    Raises:
        ArtifactError: If the artifact cannot be read or is damaged.
    """
    if name == "train":
        return slice(None)
    with artifacts.read(path) as file:
        return file[name][()]


def sample(images: int, size: int | str, seed: int) -> np.ndarray:
    """Draw a random sample of images without replacement.

    Args:
        images: The number of images.
        size: The size of the sample, or "all".
        seed: The seed of the draw.
    Returns:
        The sorted indices, (size,). These are all images if the size is "all" or not smaller than their
        number.
    """
    if size == "all" or size >= images:
        return np.arange(images)
    return np.sort(np.random.default_rng(seed).choice(images, size, replace=False))


def shard(values: np.ndarray, name: str) -> np.ndarray:
    """Return one of several nearly equal parts of an array, with the order kept.

    Args:
        values: The array, (n, ...).
        name: The part; `3-of-6` is the third of six.
    Returns:
        The values of this part, along the first axis.
    Raises:
        StepError: If there are fewer values than parts.
    """
    number, total = map(int, name.split("-of-"))
    if len(values) < total:
        raise StepError(
            f"{len(values)} images do not make {total} shards: "
            "raise attack.images_per_job, or have more images"
        )
    return np.array_split(values, total)[number - 1]
