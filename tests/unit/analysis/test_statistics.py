"""Intervals and verdicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blindspots.analysis import statistics
from blindspots.analysis.statistics import AGREES, DIFFERS, printed_range


def rate(one):
    return statistics.rate([one])


def mean(one):
    return statistics.mean([one])


def compare_rate(one, printed, n):
    return statistics.compare_rate([one], printed, n)


def compare_mean(one, printed, n):
    return statistics.compare_mean([one], printed, n)


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
    assert rate(events(3, 10))[:4] == rate(events(3, 10)[::-1])[:4]


def test_students_interval_is_the_published_one():
    # t(0.975, 4) = 2.776 from the printed tables; the standard error of 1..5 is √2.5/√5.
    estimate = mean(np.arange(1.0, 6))
    assert (estimate.value, estimate.n) == (3.0, 5)
    assert estimate.high - 3 == pytest.approx(2.776 * 0.5**0.5, abs=1e-3)
    assert 3 - estimate.low == pytest.approx(estimate.high - 3)


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [
        ("26.2", 26.15, 26.25),
        ("6.25", 6.245, 6.255),
        ("100", 99.5, 100.5),
        ("0", -0.5, 0.5),
        ("0.062", 0.0615, 0.0625),
    ],
)
def test_printed_range_holds_what_rounds_to_the_printed_number(printed, low, high):
    assert printed_range(printed) == (pytest.approx(low), pytest.approx(high))


def test_a_number_that_is_printed_as_a_bound_stands_for_all_below_it():
    assert printed_range("<1.2") == (0, 1.2)
    assert compare_rate(events(0, 10_000), "<1.2", 10_000) == AGREES
    assert compare_rate(events(100, 10_000), "<1.2", 10_000) == AGREES
    assert compare_rate(events(200, 10_000), "<1.2", 10_000) == DIFFERS


def test_a_difference_has_welchs_interval_and_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1.2, 0.1, 5), rng.normal(1.4, 0.2, 4)
    found = statistics.difference(one, other)
    wanted = stats.ttest_ind(one, other, equal_var=False)
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))


@pytest.mark.parametrize(("one", "other"), [([1.0], [2.0]), ([1.0, 1.5], [2.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_a_difference_without_a_spread_has_no_interval(one, other):
    found = statistics.difference(one, other)
    assert found.value == pytest.approx(np.mean(one) - np.mean(other))
    assert np.isnan([found.low, found.high, found.p]).all()


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
    # 26.2 % of 256 is 67. Summed from the definition, p is 0.0116
    # for 32 of 200 against 67 of 256, and 0.0059 for 31.
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
    # The error of the difference is s √(1/n + 1/paper_n): here
    # √(1/100 + 1/100) = 0.1414, and 2.576 of it is 0.364.
    values = np.array([-1.0, 1.0] * 50) * (99 / 100) ** 0.5
    half = 0.0005  # the printed number stands for values that are nearer by this much
    assert compare_mean(values + 0.360 + half, "0.000", 100) == AGREES
    assert compare_mean(values + 0.369 + half, "0.000", 100) == DIFFERS
    assert compare_mean(values - 0.360 - half, "0.000", 100) == AGREES
    assert compare_mean(values - 0.369 - half, "0.000", 100) == DIFFERS
    # Of 25 images of the paper's √(1/100 + 1/25) = 0.2236, and 2.576 of it is 0.576.
    assert compare_mean(values + 0.572 + half, "0.000", 25) == AGREES
    assert compare_mean(values + 0.580 + half, "0.000", 25) == DIFFERS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("values", [np.array([]), np.array([7.0])], ids=["none", "one"])
def test_too_few_values_for_a_spread_agree_with_nothing(values):
    assert compare_mean(values, "0.062", 256) != AGREES


def test_verdict_names_are_the_documented_ones():
    assert (AGREES, DIFFERS, statistics.NOT_COMPARABLE) == ("agrees", "differs", "not comparable")


def test_the_std_is_over_replicates_and_nothing_for_one():
    one, three = [events(20, 100)], [events(count, 100) for count in (10, 20, 30)]
    assert np.isnan(statistics.rate(one).std)
    assert np.isnan(statistics.mean([np.arange(5.0)]).std)
    assert statistics.rate(three).std == pytest.approx(0.1)
    assert statistics.mean([np.arange(5.0) + shift for shift in (0, 1, 2)]).std == pytest.approx(1)


def test_replicates_are_averaged_and_their_interval_is_still_that_of_the_images():
    alike = statistics.rate([events(20, 100)] * 4)
    assert alike[:4] == pytest.approx(statistics.rate([events(20, 100)])[:4])
    assert statistics.rate([events(10, 100), events(30, 100)])[:4] == pytest.approx(alike[:4])
    values = np.random.default_rng(0).normal(size=50)
    assert statistics.mean([values] * 4)[:4] == pytest.approx(statistics.mean([values])[:4])
    calm, wild = (
        np.array([-1.0, 1.0] * 50) * size for size in (1, 7)
    )  # variances of 1 and 49, 25 on average
    average = statistics.mean([np.array([-1.0, 1.0] * 50) * 5])
    assert (
        statistics.mean([calm, wild])[:4] == statistics.mean([wild, calm])[:4] == pytest.approx(average[:4])
    )


def test_a_verdict_with_replicates_forgives_what_training_again_moves():
    scattered = [events(count, 10000) for count in (400, 1200, 800)]
    steady = [events(count, 10000) for count in (799, 801, 800)]
    assert statistics.compare_rate(scattered, "14", 256) == AGREES
    assert statistics.compare_rate(steady, "14", 256) == DIFFERS
    noise = np.random.default_rng(0).normal(size=1000)
    assert statistics.compare_mean([noise + shift for shift in (-0.5, 0, 0.5)], "0.5", 1000) == AGREES
    assert statistics.compare_mean([noise + shift for shift in (-0.001, 0, 0.001)], "0.5", 1000) == DIFFERS


def test_a_verdict_with_replicates_is_welchs():
    # Means 0.1, 0.2, 0.3: a variance of 0.01, times 1 + 1/3 for
    # the paper's one training; sampling adds p(1-p)(1/n + 1/m).
    three = [events(count, 1000) for count in (100, 200, 300)]
    for theirs, wanted in ((0.2, AGREES), (0.6, AGREES), (0.99, AGREES)):
        assert statistics.compare_rate(three, f"{100 * theirs:.4f}", 1000) == wanted
    # With two degrees of freedom 1 % lies 9.92 standard errors away, with five (six replicates) 4.03.
    six = [events(count, 1000) for count in (180, 190, 200, 200, 210, 220)]
    error = np.std([0.18, 0.19, 0.2, 0.2, 0.21, 0.22], ddof=1) * np.sqrt(1 + 1 / 6)
    assert statistics.compare_rate(six, f"{100 * (0.2 + 3 * error):.6f}", 10**6) == AGREES
    assert statistics.compare_rate(six, f"{100 * (0.2 + 4.5 * error):.6f}", 10**6) == DIFFERS


def test_degrees_of_freedom_grow_with_what_sampling_has_of_the_variance():
    # Sampling: 1/100 + 1/100 = 0.02. Training: means -d, d have a variance of 2d²,
    # times 1 + 1/2: 0.02, too. So the error is 0.2 and of Welch's and Satterthwaite's
    # (2 - 1) (0.04/0.02)² = 4 degrees of freedom 1 % lies 4.604 errors away: 0.921.
    images, d = np.array([-1.0, 1.0] * 50) * (99 / 100) ** 0.5, (0.02 / 3) ** 0.5
    half = 0.0005
    for difference, wanted in ((0.91, AGREES), (0.93, DIFFERS)):
        two = [images + difference + half + shift for shift in (-d, d)]
        assert statistics.compare_mean(two, "0.000", 100) == wanted


def test_a_rates_sampling_is_that_of_both_samples_together():
    # Without a spread over trainings it is the z test with the pooled share. Against 5 of
    # the paper's 100, 15 of our 1,000 have z = 2.498, and 144 have 2.619, where 1 % lies
    # at 2.576; by our share alone it would be 2.745 and 2.533.
    assert statistics.compare_rate([events(15, 1000)] * 3, "5.00", 100) == AGREES
    assert statistics.compare_rate([events(144, 1000)] * 3, "5.00", 100) == DIFFERS


def test_replicates_that_all_say_the_same_as_the_paper_agree():
    assert statistics.compare_rate([events(100, 100)] * 3, "100", 256) == AGREES
    assert statistics.compare_rate([events(0, 100)] * 3, "0", 256) == AGREES
    assert statistics.compare_rate([events(0, 100)] * 3, "100", 256) == DIFFERS


# the effect

SAMPLES = st.lists(st.integers(-4, 4), min_size=1, max_size=12)  # small whole numbers: many ties


@given(one=SAMPLES, other=SAMPLES)
def test_the_probability_counts_pairs_and_lies_in_its_interval(one, other):
    effect = statistics.probability_larger(one, other)
    wanted = np.mean([(a > b) + (a == b) / 2 for a in one for b in other])
    assert effect.probability == pytest.approx(wanted)
    assert 0 <= effect.low <= effect.probability + 1e-12
    assert effect.probability - 1e-12 <= effect.high <= 1
    assert effect.low < effect.high  # never without a width
    assert 0 <= effect.p <= 1


@given(one=SAMPLES, other=SAMPLES)
def test_the_effect_is_antisymmetric(one, other):
    there, back = statistics.probability_larger(one, other), statistics.probability_larger(other, one)
    assert there.probability == pytest.approx(1 - back.probability)
    assert there.low == pytest.approx(1 - back.high, abs=1e-9)
    assert there.high == pytest.approx(1 - back.low, abs=1e-9)
    assert there.p == pytest.approx(back.p)


@given(SAMPLES)
def test_a_sample_does_not_differ_from_itself(one):
    effect = statistics.probability_larger(one, one)
    assert effect.probability == pytest.approx(0.5)
    assert effect.p == pytest.approx(1, abs=0.05)  # with ties the normal approximation, continuity corrected


@given(one=SAMPLES, other=SAMPLES)
def test_only_the_order_of_values_matters(one, other):
    cubed = statistics.probability_larger(np.array(one, float) ** 3, np.array(other, float) ** 3)
    assert cubed == pytest.approx(statistics.probability_larger(other=other, one=one))


def test_the_p_value_is_mann_and_whitneys():
    # All 20 ways to choose the ranks of three out of six are as likely, and two are as extreme as this one.
    assert statistics.probability_larger([4, 5, 6], [1, 2, 3]).p == pytest.approx(2 / 20)
    assert statistics.probability_larger([1, 2, 3], [4, 5, 6]).p == pytest.approx(2 / 20)


def test_complete_separation_is_wilsons_interval_for_the_smaller_sample():
    # Wilson's interval for 20 of 20; its complement, 0 to 0.1611, is Newcombe's (1998) for 0 of 20.
    effect = statistics.probability_larger(np.arange(20) + 100, np.arange(35))
    assert effect.probability == 1
    assert (effect.low, effect.high) == (pytest.approx(1 - 0.1611, abs=5e-5), pytest.approx(1))
    assert effect.p < 1e-6


def test_the_interval_of_large_samples_is_delongs():
    # DeLong's variance by its definition, over all pairs.
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.5, 1, 2000), rng.normal(0, 1, 1500)
    wins = (one[:, None] > other).astype(float)
    variance = wins.mean(1).var(ddof=1) / 2000 + wins.mean(0).var(ddof=1) / 1500
    effect = statistics.probability_larger(one, other)
    half = 1.959964 * variance**0.5
    assert effect.low == pytest.approx(effect.probability - half, abs=5e-4)
    assert effect.high == pytest.approx(effect.probability + half, abs=5e-4)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
@pytest.mark.parametrize(("m", "other"), [(8, 20), (60, 60)])
def test_the_interval_covers_the_truth(m, other, shift):
    truth = stats.norm.cdf(shift / 2**0.5)
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        effect = statistics.probability_larger(rng.normal(shift, 1, m), rng.normal(0, 1, other))
        covered.append(effect.low <= truth <= effect.high)
    assert 0.91 <= np.mean(covered) <= 0.995


@pytest.mark.parametrize(
    ("one", "other"), [([], [1.0]), ([1.0], []), ([1.0, np.nan], [1.0]), ([1.0], [np.nan])]
)
def test_samples_that_are_empty_or_have_no_order_are_refused(one, other):
    with pytest.raises(ValueError, match="two samples, without NaN"):
        statistics.probability_larger(one, other)
