"""Kinds of numbers in tables: how each is computed, written and compared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A kind of number.

    Attributes:
        symbol: The name in the tables' column `unit`.
        formula: How it is computed from its arrays, in words.
        format: The format specification, for Python's `format`.
        compute: Computes the number from its arrays without missing values. There is one array per replicate,
            or there are two sides.
        suffix: The text after the number.
        of_images: Whether each value of its arrays belongs to one image.
        two_sided: Whether its arrays are two sides that are compared, instead of replicates.
        rates: The number of rates in it, each of which may differ by a tolerance in percentage points.
    """

    symbol: str
    formula: str
    format: str
    compute: Callable[[Arrays], float]
    suffix: str = ""
    of_images: bool = False
    two_sided: bool = False
    rates: int = 0

    def of(self, arrays: Arrays) -> float:
        """Compute the number.

        Args:
            arrays: The arrays without missing values, each (n,).
        Returns:
            The number, or NaN if one of the arrays is empty.
        """
        return float(self.compute(arrays)) if all(map(len, arrays)) else math.nan


def _mean(arrays: Arrays) -> float:
    return np.mean([array.mean() for array in arrays])


def _percent(arrays: Arrays) -> float:
    return 100 * _mean(arrays)


def _largest(arrays: Arrays) -> float:
    return np.mean([array.max() for array in arrays])


def _points(arrays: Arrays) -> float:
    means = [100 * array.mean() for array in arrays]
    half = len(means) // 2
    return np.mean(means[:half]) - np.mean(means[half:])


def _probability(arrays: Arrays) -> float:
    one, other = arrays
    return ((one[:, None] > other) + (one[:, None] == other) / 2).mean()


_ALL = (
    Kind("%", "100 × the mean over the images", ".1f", _percent, suffix=" %", of_images=True, rates=1),
    Kind("rms", "the mean over the images that are not NaN", ".4f", _mean, of_images=True),
    Kind("share", "the mean over the rows of images", ".2f", _mean),
    Kind("norm", "the array itself", ".3g", _mean),
    Kind("ratio", "the largest over the images", ".3g", _largest),
    Kind(
        "points",
        "the mean over the first half, less that over the second, of 100 × the mean over the images",
        "+.2f",
        _points,
        two_sided=True,
        rates=2,
    ),
    Kind(
        "probability",
        "the probability that a value of the first is larger than one of the second, a tie counting half",
        ".2f",
        _probability,
        two_sided=True,
    ),
)
KINDS = {kind.symbol: kind for kind in _ALL}
