"""Intervals and verdicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspots import statistics
from blindspots.statistics import AGREES, DIFFERS, compare_mean, compare_rate, mean, printed_range, rate


def events(count, size):
    return np.arange(size) < count


@pytest.mark.parametrize(
    ("count", "size", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(count, size, low, high):
    estimate = rate(events(count, size))
    assert (estimate.value, estimate.n) == (count / size, size)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(size=st.integers(1, 500), data=st.data())
def test_a_rate_lies_in_its_interval_and_more_events_move_it_up(size, data):
    count = data.draw(st.integers(0, size - 1))
    one, more = rate(events(count, size)), rate(events(count + 1, size))
    assert -1e-12 <= one.low <= one.value + 1e-12
    assert one.value <= one.high + 1e-12 <= 1 + 2e-12
    assert one.low < more.low
    assert one.high < more.high


def test_the_order_of_events_does_not_matter():
    assert rate(events(3, 10)) == rate(events(3, 10)[::-1])


def test_students_interval_is_the_published_one():
    # t(0.975, 4) = 2.776 from the printed tables; the standard error of 1..5 is √2.5/√5.
    estimate = mean(np.arange(1.0, 6))
    assert (estimate.value, estimate.n) == (3.0, 5)
    assert estimate.high - 3 == pytest.approx(2.776 * 0.5**0.5, abs=1e-3)
    assert 3 - estimate.low == pytest.approx(estimate.high - 3)


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [("26.2", 26.15, 26.25), ("6.25", 6.245, 6.255), ("100", 99.5, 100.5), ("0", -0.5, 0.5), ("0.062", 0.0615, 0.0625)],
)
def test_printed_range_holds_what_rounds_to_the_printed_number(printed, low, high):
    assert printed_range(printed) == (pytest.approx(low), pytest.approx(high))


@given(st.decimals(0, 100, places=2), st.floats(-0.49, 0.49))
def test_every_value_in_the_printed_range_rounds_to_the_printed_number(number, part):
    low, high = printed_range(str(number))
    value = float(number) + part * 0.01
    assert low <= value <= high
    assert f"{value:.2f}" == str(number) or f"{value:.2f}" == "-0.00"


@given(size=st.integers(1, 2000), paper_n=st.integers(1, 10000), places=st.integers(0, 2), data=st.data())
def test_a_rate_that_rounds_to_the_papers_agrees(size, paper_n, places, data):
    count = data.draw(st.integers(0, size))
    assert compare_rate(events(count, size), f"{100 * count / size:.{places}f}", paper_n) == AGREES


@pytest.mark.parametrize(("printed", "theirs"), [("26.2", 67), ("5.9", 15), ("100", 256), ("0", 0)])
def test_verdicts_on_rates_go_from_differs_through_agrees_to_differs(printed, theirs):
    verdicts = "".join(compare_rate(events(count, 200), printed, 256)[0] for count in range(201))
    assert verdicts.strip("d") == "a" * verdicts.count("a")
    assert verdicts[round(theirs / 256 * 200)] == "a"
    assert "d" in verdicts


def test_a_verdict_on_a_rate_is_fishers_at_one_percent():
    # 26.2 % of 256 is 67. Summed from the definition, p is 0.0116 for 32 of 200 against 67 of 256, and 0.0059 for 31.
    assert compare_rate(events(32, 200), "26.2", 256) == AGREES
    assert compare_rate(events(31, 200), "26.2", 256) == DIFFERS


def test_more_images_of_ours_or_the_papers_make_a_difference_visible():
    assert compare_rate(events(13, 50), "20", 50) == AGREES
    assert compare_rate(events(1300, 5000), "20", 5000) == DIFFERS


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), size=st.integers(2, 300), paper_n=st.integers(1, 1000))
def test_a_mean_that_rounds_to_the_papers_agrees(seed, size, paper_n):
    values = np.random.default_rng(seed).uniform(0, 0.2, size)
    assert compare_mean(values, f"{values.mean():.3f}", paper_n) == AGREES


def test_verdicts_on_means_follow_the_z_test():
    # The error of the difference is s √(1/n + 1/paper_n): here √(1/100 + 1/100) = 0.1414, and 2.576 of it is 0.364.
    values = np.array([-1.0, 1.0] * 50) * (99 / 100) ** 0.5
    half = 0.0005  # the printed number stands for values that are nearer by this much
    assert compare_mean(values + 0.360 + half, "0.000", 100) == AGREES
    assert compare_mean(values + 0.369 + half, "0.000", 100) == DIFFERS
    assert compare_mean(values - 0.360 - half, "0.000", 100) == AGREES
    assert compare_mean(values - 0.369 - half, "0.000", 100) == DIFFERS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("values", [np.array([]), np.array([7.0])], ids=["none", "one"])
def test_too_few_values_for_a_spread_agree_with_nothing(values):
    assert compare_mean(values, "0.062", 256) != AGREES


def test_verdict_names_are_the_documented_ones():
    assert (AGREES, DIFFERS, statistics.NOT_COMPARABLE) == ("agrees", "differs", "not comparable")
