"""L-BFGS on one large problem: its direction, its line search, its ends, and any number of threads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blindspots.parallel.workers import Workers
from blindspots.solvers.limited_memory import (
    CONVERGED,
    NO_DESCENT,
    NOT_FINITE,
    OUT_OF_ITERATIONS,
    Pairs,
    Point,
    minimise,
)


def two_loops(gradient, pairs):
    """-H g by Algorithm 7.4 of Nocedal & Wright."""
    q, alphas = gradient.clone(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    r = q * (s @ y) / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += (alpha - y @ r / (s @ y)) * s
    return -r


class Bowl:
    """½ (w - 1)ᵀ A (w - 1), whose curvatures A are powers of ten; it counts what it is asked."""

    def __init__(self, size=30, condition=3.0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        axes = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
        curvatures = torch.logspace(-condition / 2, condition / 2, size, dtype=torch.float64)
        self.matrix = (axes * curvatures @ axes.T).to(dtype)
        self.start, self.asked = torch.zeros(size, dtype=dtype), 0

    def __call__(self, w):
        self.asked += 1
        slope = self.matrix @ (w - 1)
        return (slope @ (w - 1)).item() / 2, slope

    def minimum(self, history=5, pairs=None, **changes):
        pairs = pairs or Pairs(history, self.start)
        options = {"tolerance": 1e-8, "max_iterations": 1000} | changes
        return minimise(self, Point.of(self, self.start), pairs, **options)


@given(seed=st.integers(0, 10**6), most=st.integers(1, 6), steps=st.integers(1, 15))
def test_the_direction_is_that_of_the_two_loop_recursion_over_the_newest_pairs(seed, most, steps):
    generator = torch.Generator().manual_seed(seed)
    bowl = Bowl()
    w = bowl.start
    pairs, kept = Pairs(most, w), []
    gradient = bowl(w)[1]
    pairs.start(gradient)
    for _ in range(steps):
        direction = pairs.direction()
        if kept:
            assert direction.numpy() == pytest.approx(
                two_loops(gradient, kept[-most:]).numpy(), rel=1e-6, abs=1e-9
            )
        length = torch.rand((), generator=generator).item() + 0.01
        before, w = gradient, w + length * direction
        gradient = bowl(w)[1]
        pairs.step(length, direction, gradient)
        kept.append((length * direction, gradient - before))


def test_the_first_direction_is_down_the_gradient_and_no_longer_than_one():
    pairs = Pairs(3, torch.zeros(2))
    pairs.start(torch.tensor([3.0, 4.0]))
    assert pairs.direction().tolist() == pytest.approx([-0.6, -0.8])
    pairs.start(torch.tensor([0.3, 0.4]))
    assert pairs.direction().tolist() == pytest.approx([-0.3, -0.4])


def test_a_step_along_negative_curvature_leaves_no_pair():
    pairs = Pairs(3, torch.zeros(2))
    pairs.start(torch.tensor([1.0, 0.0]))
    pairs.step(1.0, pairs.direction(), torch.tensor([2.0, 0.0]))
    assert pairs.direction().tolist() == [-1.0, 0.0]  # down the gradient as before


@pytest.mark.parametrize("history", [1, 5, 40])
def test_it_comes_to_the_minimum_the_sooner_the_more_pairs(history):
    bowl = Bowl()
    found = bowl.minimum(history)
    assert found.message == CONVERGED
    assert found.point.gradient.abs().max() <= 1e-8
    assert found.point.values.numpy() == pytest.approx(np.ones(30), abs=1e-5)
    assert bowl.asked < 2 * found.iterations + 2
    if history == 40:
        assert found.iterations < Bowl().minimum(5).iterations


def test_every_iteration_lowers_the_value_and_is_told():
    seen = []
    found = Bowl().minimum(after=seen.append)
    assert len(seen) == found.iterations
    assert (np.diff([Bowl()(Bowl().start)[0], *(point.loss for point in seen)]) < 0).all()
    assert seen[-1] is found.point
    assert seen[-1].loss == pytest.approx(Bowl()(found.point.values)[0])


def test_pairs_of_an_earlier_minimisation_shorten_the_next():
    bowl = Bowl()
    pairs = Pairs(40, bowl.start)
    first = bowl.minimum(pairs=pairs).iterations
    assert bowl.minimum(pairs=pairs).iterations < 0.7 * first


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_no_more_iterations_than_are_allowed(limit):
    found = Bowl().minimum(max_iterations=limit)
    assert (found.iterations, found.message) == (limit, OUT_OF_ITERATIONS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tolerance_below_what_the_precision_can_tell_ends_where_no_step_descends(dtype):
    found = Bowl(dtype=dtype).minimum(tolerance=1e-30, max_iterations=100_000)
    assert found.message == NO_DESCENT
    assert found.point.loss < 1e-8


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_at_the_start_is_the_end(value):
    found = minimise(
        lambda w: (value, w),
        Point.of(lambda w: (value, w), torch.ones(3)),
        Pairs(3, torch.ones(3)),
        tolerance=1e-3,
        max_iterations=10,
    )
    assert (found.iterations, found.message) == (0, NOT_FINITE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_no_number_at_the_start_is_the_end_whatever_the_pairs(value):
    bowl = Bowl()
    pairs = Pairs(5, bowl.start)
    bowl.minimum(pairs=pairs)
    start = Point(bowl.start, 1.0, torch.ones(30).double().index_fill(0, torch.tensor([7]), value))
    found = minimise(bowl, start, pairs, tolerance=1e-3, max_iterations=10)
    assert (found.iterations, found.message) == (0, NOT_FINITE)


def test_a_gradient_too_small_to_be_squared_is_followed_to_the_end():
    found = minimise(
        lambda w: (0.0, w),
        Point.of(lambda w: (0.0, w), torch.full((3,), 1e-25)),
        Pairs(3, torch.ones(3)),
        tolerance=1e-30,
        max_iterations=10,
    )
    assert found.message in (CONVERGED, NO_DESCENT)


@pytest.mark.parametrize(
    "beyond", [(math.nan, math.nan), (math.inf, math.inf), (0.0, math.nan), (-1.0, math.inf)]
)
def test_a_value_or_gradient_that_is_no_number_further_on_is_too_far(beyond):
    loss, slope = beyond

    def function(w):  # (w - 1)² / 2 up to 1.5
        return (loss, w * slope) if w > 1.5 else ((w - 1).square().item() / 2, w - 1)

    start = torch.tensor([-2.0])
    pairs = Pairs(3, start)
    pairs.start(torch.tensor([1.0]))
    pairs.step(
        -4.0, pairs.direction(), torch.tensor([2.0])
    )  # of another function: the first step is too long
    found = minimise(function, Point.of(function, start), pairs, tolerance=1e-5, max_iterations=50)
    assert found.message == CONVERGED
    assert found.point.values.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [3, 1000])
def test_the_same_bytes_for_any_number_of_threads(threads, size):
    bowl = Bowl(size, dtype=torch.float32)
    wanted = bowl.minimum(max_iterations=20).point
    with Workers(threads) as workers:
        found = bowl.minimum(max_iterations=20, pairs=Pairs(5, bowl.start, workers.map)).point
    assert torch.equal(found.values, wanted.values)
    assert torch.equal(found.gradient, wanted.gradient)
