"""Disjoint parts of the training set, such as the paper's P1 and P2 (Section 4.2)."""

from collections.abc import Mapping, Sequence

import numpy as np


def split(images: int, parts: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Divide images at random into disjoint parts.

    Args:
        images: The number of images.
        parts: The range (start, stop) of each part, by its name.
            All ranges refer to one permutation of all images.
        seed: The seed of the permutation.
    Returns:
        The sorted image indices of each part, by its name.
    Raises:
        ValueError: If a range is not within the images, or if it overlaps another.
    """
    taken = np.zeros(images, dtype=bool)
    order = np.random.default_rng(seed).permutation(images)
    result = {}
    for name, (start, stop) in parts.items():
        if not 0 <= start < stop <= images:
            raise ValueError(f"the split {name} = [{start}, {stop}] is no range within {images} images")
        indices = np.sort(order[start:stop])
        if taken[indices].any():
            raise ValueError(f"the split {name} = [{start}, {stop}] overlaps another")
        taken[indices] = True
        result[name] = indices
    return result
