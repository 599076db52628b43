"""Confidence intervals, and the tests behind a verdict against the paper's numbers.

Rates have Wilson's interval. Fisher's exact test compares our count with the paper's.
Means have Student's interval. A z test compares them; it assumes that the paper's unknown spread equals ours.
A printed number stands for every value that rounds to it. `<1.2` stands for every value up to 1.2.
The value nearest to ours among these is tested.
Replicates are other trainings of the same networks.
With replicates, both tests are t tests (Welch and Satterthwaite's degrees of freedom).
They then also count how much training again changes a number.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.01  # the level of the tests: the verdict is `differs` if the test rejects
CONFIDENCE = 0.95  # the confidence level of the intervals

AGREES, DIFFERS, NOT_COMPARABLE = "agrees", "differs", "not comparable"


Replicates = Sequence[np.ndarray]  # the values of the images, (n,), for each training of the networks


class Estimate(NamedTuple):
    """An estimate with its confidence interval.

    Attributes:
        value: The estimate.
        n: The number of images.
        low: The lower end of the interval.
        high: The upper end of the interval.
        std: The standard deviation over replicates, NaN for a single one.
    """

    value: float
    n: int
    low: float
    high: float
    std: float


def rate(replicates: Replicates) -> Estimate:
    """Estimate the share of true values, with Wilson's interval.

    The interval is that of sampling n images.

    Args:
        replicates: The values of each replicate, (n,) bool.
    Returns:
        The share and its interval, NaN without images.
    """
    n = min(map(len, replicates))
    if not n:
        return without_interval(float("nan"), 0)
    shares = [events.mean() for events in replicates]
    interval = stats.binomtest(round(np.mean(shares) * n), n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(float(np.mean(shares)), n, interval.low, interval.high, _std(shares))


def mean(replicates: Replicates) -> Estimate:
    """Estimate the mean of values, with Student's interval.

    The interval is that of sampling n images.

    Args:
        replicates: The values of each replicate, (n,).
    Returns:
        The mean and its interval. The mean is NaN without images, and the interval with fewer than two.
    """
    n = min(map(len, replicates))
    if not n:
        return without_interval(float("nan"), 0)
    means = [values.mean() for values in replicates]
    value = float(np.mean(means))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * _standard_error(replicates)
    return Estimate(value, n, value - half, value + half, _std(means))


def without_interval(value: float, n: int) -> Estimate:
    """Return an estimate without an interval.

    Args:
        value: The estimate.
        n: The number of images.
    Returns:
        The estimate, with NaN for the interval and the standard deviation.
    """
    return Estimate(float(value), n, float("nan"), float("nan"), float("nan"))


class Difference(NamedTuple):
    """A difference of two means.

    Attributes:
        value: The difference.
        low: The lower end of the 95 % interval.
        high: The upper end of the 95 % interval.
        p: The two-sided p value of Welch's test.
    """

    value: float
    low: float
    high: float
    p: float


def difference(one: Sequence[float], other: Sequence[float]) -> Difference:
    """Compute how much the mean of one sample exceeds another's, with Welch's interval and test.

    Args:
        one: Independent values, (m,).
        other: Independent values, (m',).
    Returns:
        The difference. The interval and the p value are NaN if a sample has fewer than two values.
        They are also NaN if neither sample has a spread.
    """
    value = float(np.mean(one) - np.mean(other))
    if min(len(one), len(other)) < 2 or max(np.ptp(one), np.ptp(other)) == 0:
        return Difference(value, *[float("nan")] * 3)
    found = stats.ttest_ind(one, other, equal_var=False)
    interval = found.confidence_interval(CONFIDENCE)
    return Difference(value, float(interval.low), float(interval.high), float(found.pvalue))


def printed_range(printed: str) -> tuple[float, float]:
    """Return the range of the values that a printed number stands for.

    Args:
        printed: A decimal number, or a decimal number after "<".
    Returns:
        The limits of the values that round to the number. After "<" they are 0 and the number.
    """
    if printed.startswith("<"):
        return 0.0, float(printed[1:])
    number = Decimal(printed)
    half = Decimal(5).scaleb(number.as_tuple().exponent - 1)
    return float(number - half), float(number + half)


def compare_rate(replicates: Replicates, printed: str, paper_n: int) -> str:
    """Compare a rate with a rate that the paper prints in percent.

    Args:
        replicates: Our events of each replicate, (n,) bool.
        printed: The paper's rate in percent, as printed.
        paper_n: The number of images that the paper's rate is taken over.
    Returns:
        The verdict: `AGREES`, `DIFFERS`, or `NOT_COMPARABLE` without images.
    """
    n = min(map(len, replicates))
    if not n:
        return NOT_COMPARABLE
    low, high = printed_range(printed)
    shares = [events.mean() for events in replicates]
    ours = np.mean(shares)
    theirs = round(np.clip(ours, max(low, 0) / 100, min(high, 100) / 100) * paper_n)
    if len(replicates) == 1:
        count = int(replicates[0].sum())
        table = [[count, n - count], [theirs, paper_n - theirs]]
        return DIFFERS if stats.fisher_exact(table).pvalue < SIGNIFICANCE else AGREES
    pooled = (ours * n + theirs) / (n + paper_n)
    return _verdict(ours - theirs / paper_n, shares, pooled * (1 - pooled) * (1 / n + 1 / paper_n))


def compare_mean(replicates: Replicates, printed: str, paper_n: int) -> str:
    """Compare a mean with a mean that the paper prints.

    Args:
        replicates: Our values of each replicate, (n,).
        printed: The paper's mean, as printed.
        paper_n: The number of images that the paper's mean is taken over.
    Returns:
        The verdict: `AGREES`, `DIFFERS`, or `NOT_COMPARABLE` with fewer than two images.
    """
    n = min(map(len, replicates))
    if n < 2:
        return NOT_COMPARABLE
    means = [values.mean() for values in replicates]
    ours = np.mean(means)
    difference = ours - np.clip(ours, *printed_range(printed))
    return _verdict(difference, means, _standard_error(replicates) ** 2 * (1 + n / paper_n))


def _verdict(difference: float, means: Sequence[float], sampling: float) -> str:
    """Test whether a difference to the paper's single training exceeds what two sources of variation explain.

    The sources are the sampling of images and training again.

    Args:
        difference: Our mean over replicates minus the paper's number.
        means: The mean of each replicate.
        sampling: The variance of the difference from sampling the images, ours and the paper's.
    """
    training, freedom = 0.0, np.inf
    if len(means) > 1:
        training = np.var(means, ddof=1) * (1 + 1 / len(means))
        # The degrees of freedom are Welch and Satterthwaite's.
        freedom = (len(means) - 1) * ((training + sampling) / training) ** 2 if training else np.inf
    error = np.sqrt(training + sampling)
    if difference == 0 or error == 0:
        return AGREES if difference == 0 else DIFFERS
    return DIFFERS if 2 * stats.t.sf(abs(difference) / error, freedom) < SIGNIFICANCE else AGREES


def _std(means: Sequence[float]) -> float:
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def _standard_error(replicates: Replicates) -> float:
    """Return the standard error of one replicate's mean from sampling n images.

    Replicates share their images, so more replicates do not reduce it.
    """
    if min(map(len, replicates)) < 2:
        return float("nan")
    return float(np.sqrt(np.mean([values.var(ddof=1) / len(values) for values in replicates])))


class Effect(NamedTuple):
    """The probability that a value of one sample is larger than one of another.

    Attributes:
        probability: The probability that a value of the first sample is larger than one of the second.
            Ties count half, and ½ means no difference.
        low: The lower end of the 95 % interval.
        high: The upper end of the 95 % interval.
        p: The two-sided p value of Mann and Whitney's test.
    """

    probability: float
    low: float
    high: float
    p: float


def probability_larger(one: np.ndarray, other: np.ndarray) -> Effect:
    """Compute the probability that a value of one sample is larger than one of another, independent sample.

    The interval is Wilson's, with a number of trials that is chosen as follows.
    With this number the probability has the variance that DeLong's estimator gives.
    If this variance is zero, the number is the size of the smaller sample.
    Unlike DeLong's own interval, it stays within [0, 1] and has a width at 0 and 1.
    In simulations it covers in 91 to 99 % of the cases for samples of the same size, from 5 on.
    It covers too seldom if one sample is many times as large as the other.
    For 5 and 1,000 values it covers in 66 to 88 % of the cases.

    Args:
        one: The values of one sample, (m,).
        other: The values of the other sample, (m',).
    Returns:
        The probability, its interval and the p value.
    Raises:
        ValueError: If a sample is empty or has a NaN.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if min(len(one), len(other)) == 0 or np.isnan(one).any() or np.isnan(other).any():
        raise ValueError("a comparison needs two samples, without NaN")
    larger, smaller = _exceeded(one, other), 1 - _exceeded(other, one)
    probability = float(larger.mean())
    trials = float(min(len(one), len(other)))
    if trials > 1 and (variance := larger.var(ddof=1) / len(one) + smaller.var(ddof=1) / len(other)) > 0:
        trials = probability * (1 - probability) / variance
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = (probability + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = (
        z / (1 + z**2 / trials) * np.sqrt(probability * (1 - probability) / trials + (z / (2 * trials)) ** 2)
    )
    p = float(stats.mannwhitneyu(one, other).pvalue)
    return Effect(probability, max(0.0, float(centre - half)), min(1.0, float(centre + half)), p)


def _exceeded(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the share of the other values (m',) that each value of one (m,) exceeds, ties half: (m,)."""
    other = np.sort(other)
    return (np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")) / (2 * len(other))
