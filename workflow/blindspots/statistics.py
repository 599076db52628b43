"""Confidence intervals, and the tests behind a verdict against the paper's numbers.

Rates: Wilson's interval; Fisher's exact test between our count and the paper's. Means: Student's interval; a z test in
which the paper's unknown spread is taken to be ours. A printed number stands for every value that rounds to it, and the
one nearest to ours is tested.
"""

from decimal import Decimal
from typing import NamedTuple

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.01  # a verdict is `differs` when the test rejects at this level
CONFIDENCE = 0.95  # of the intervals

AGREES, DIFFERS, NOT_COMPARABLE = "agrees", "differs", "not comparable"


class Estimate(NamedTuple):
    value: float
    n: int
    low: float
    high: float


_NOTHING = Estimate(float("nan"), 0, float("nan"), float("nan"))


def rate(events: np.ndarray) -> Estimate:
    """The share of true values, (n,) bool, with Wilson's interval."""
    if not len(events):
        return _NOTHING
    result = stats.binomtest(int(events.sum()), len(events))
    interval = result.proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(float(events.mean()), len(events), interval.low, interval.high)


def mean(values: np.ndarray) -> Estimate:
    """The mean of (n,) values with Student's interval."""
    if not len(values):
        return _NOTHING
    value, error = float(values.mean()), _standard_error(values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Estimate(value, len(values), value - half, value + half)


def printed_range(printed: str) -> tuple[float, float]:
    """The values that round to a printed decimal number."""
    number = Decimal(printed)
    half = Decimal(5).scaleb(number.as_tuple().exponent - 1)
    return float(number - half), float(number + half)


def compare_rate(events: np.ndarray, printed: str, paper_n: int) -> str:
    """The verdict on our (n,) bool events against a rate that the paper prints in percent of `paper_n`."""
    if not len(events):
        return NOT_COMPARABLE
    low, high = printed_range(printed)
    nearest = float(np.clip(events.mean(), max(low, 0) / 100, min(high, 100) / 100))
    theirs = round(nearest * paper_n)
    ours = int(events.sum())
    table = [[ours, len(events) - ours], [theirs, paper_n - theirs]]
    return DIFFERS if stats.fisher_exact(table).pvalue < SIGNIFICANCE else AGREES


def compare_mean(values: np.ndarray, printed: str, paper_n: int) -> str:
    """The verdict on our (n,) values against a mean that the paper prints, taken over `paper_n` images."""
    if len(values) < 2:
        return NOT_COMPARABLE
    difference = values.mean() - np.clip(values.mean(), *printed_range(printed))
    error = _standard_error(values) * np.sqrt(1 + len(values) / paper_n)
    return DIFFERS if 2 * stats.norm.sf(abs(difference) / error) < SIGNIFICANCE else AGREES


def _standard_error(values: np.ndarray) -> float:
    if len(values) < 2:
        return float("nan")
    return float(values.std(ddof=1) / np.sqrt(len(values)))
