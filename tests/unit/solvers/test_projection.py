"""The projection onto a few half-spaces and a box, against
an independent solver and its own optimality conditions."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from blindspots.solvers.projection import project


def problem(seed, points=6, inequalities=3, pixels=20, kind="within"):
    """Points within the box, with many pixels on its bounds
    as pictures have them, or with all: feasible problems."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(points, pixels, generator=generator, dtype=torch.float64)
    x = {"within": x, "on bounds": (2 * x - 0.5).clamp(0, 1), "black and white": (x > 0.5).double()}[kind]
    normals = torch.randn(points, inequalities, pixels, generator=generator, dtype=torch.float64)
    feasible = torch.rand(points, pixels, generator=generator, dtype=torch.float64)
    return x, normals, (normals @ feasible[:, :, None])[:, :, 0]


KINDS = ("within", "on bounds", "black and white")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), inequalities=st.integers(1, 9))
@example(seed=0, inequalities=8)
def test_the_solution_satisfies_the_optimality_conditions(kind, seed, inequalities):
    x, normals, offsets = problem(seed, inequalities=inequalities, kind=kind)
    result = project(x, normals, offsets, 0, 1)
    slack = (normals @ result.point[:, :, None])[:, :, 0] - offsets
    assert (result.violation <= 1e-6).all()
    assert (result.multipliers >= 0).all()
    assert (result.multipliers * slack).abs().max() <= 1e-6
    assert torch.equal(result.point, (x + (result.multipliers[:, None] @ normals)[:, 0]).clamp(0, 1))
    primal = 0.5 * (result.point - x).square().sum(1)
    assert primal.numpy() == pytest.approx(result.dual.numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inequalities", [1, 3, 9])
def test_the_distance_is_that_of_an_independent_solver(inequalities, kind):
    x, normals, offsets = problem(1, inequalities=inequalities, kind=kind)
    result = project(x, normals, offsets, 0, 1)
    for row in range(len(x)):
        start, g, b = x[row].numpy(), normals[row].numpy(), offsets[row].numpy()
        wanted = minimize(
            lambda u, start=start: (0.5 * np.sum((u - start) ** 2), u - start),
            start,
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * len(start),
            constraints={"type": "ineq", "fun": lambda u, g=g, b=b: g @ u - b, "jac": lambda u, g=g: g},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert 0.5 * np.sum((result.point[row].numpy() - start) ** 2) == pytest.approx(
            wanted.fun, rel=1e-6, abs=1e-9
        )


def test_a_point_that_satisfies_all_stays():
    x, normals, _ = problem(2)
    offsets = (normals @ x[:, :, None])[:, :, 0] - 0.1
    assert torch.equal(project(x, normals, offsets, 0, 1).point, x)


def test_what_no_point_of_the_box_satisfies_keeps_its_violation():
    x, normals, _ = problem(3, inequalities=1)
    beyond = normals.clamp_min(0).sum(2) + 1  # the most that the box allows, and 1 more
    assert (project(x, normals, beyond, 0, 1).violation >= 1 - 1e-9).all()
    # Also beside others that are satisfied everywhere.
    normals, beyond = (
        normals.expand(-1, 3, -1).clone(),
        torch.cat([beyond, beyond - 1e3, beyond - 1e3], dim=1),
    )
    assert (project(x, normals, beyond, 0, 1).violation >= 1 - 1e-9).all()


def test_inequalities_that_say_the_same_twice_are_no_trouble():
    x, normals, offsets = problem(4, inequalities=1)
    once = project(x, normals, offsets, 0, 1).point
    twice = project(x, normals.expand(-1, 3, -1), offsets.expand(-1, 3), 0, 1).point
    assert twice.numpy() == pytest.approx(once.numpy(), abs=1e-6)


def test_rows_do_not_depend_on_each_other():
    x, normals, offsets = problem(5)
    together = project(x, normals, offsets, 0, 1).point
    for row in range(len(x)):
        alone = project(x[row : row + 1], normals[row : row + 1], offsets[row : row + 1], 0, 1).point
        assert alone[0].numpy() == pytest.approx(together[row].numpy(), abs=1e-7)


def alone(row, x, normals, offsets, **options):
    return project(x[[row]], normals[[row]], offsets[[row]], 0, 1, **options)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6), size=st.sampled_from([1e-3, 0.1, 1.0, 100.0]), inequalities=st.integers(1, 9)
)
@example(seed=3, size=100.0, inequalities=4)
def test_multipliers_to_begin_with_do_not_change_the_point(seed, size, inequalities):
    # From far away it may need more iterations than usual.
    x, normals, offsets = problem(seed, inequalities=inequalities)
    generator = torch.Generator().manual_seed(seed)
    cold = project(x, normals, offsets, 0, 1)
    start = size * torch.rand(offsets.shape, generator=generator, dtype=torch.float64)
    for warm in (start, cold.multipliers, cold.multipliers + start * (start > size / 2)):
        result = project(x, normals, offsets, 0, 1, start=warm, iterations=500)
        assert result.point.numpy() == pytest.approx(cold.point.numpy(), abs=1e-6)
        assert (result.violation <= 1e-6).all()


def test_the_solutions_multipliers_to_begin_with_end_at_once():
    x, normals, offsets = problem(6)
    cold = project(x, normals, offsets, 0, 1)
    warm = project(x, normals, offsets, 0, 1, start=cold.multipliers, iterations=0)
    assert torch.equal(warm.point, cold.point)
    assert not torch.equal(project(x, normals, offsets, 0, 1, iterations=0).point, cold.point)


def test_what_is_given_is_left_alone():
    given_ = problem(7)
    start = torch.ones(6, 3, dtype=torch.float64)
    before = [values.clone() for values in (*given_, start)]
    project(*given_, 0, 1, start=start)
    assert all(torch.equal(one, other) for one, other in zip((*given_, start), before, strict=True))


@pytest.mark.parametrize("easy", [1, 5, 19])
def test_rows_that_end_early_are_right_when_others_go_on(easy):
    # So many easy rows that the unfinished ones are copied together, or are not.
    x, normals, offsets = problem(8, points=20, inequalities=9)
    hard = torch.arange(20) % 20 >= easy
    offsets[~hard] = (normals @ x[:, :, None])[~hard, :, 0] - 0.1
    result = project(x, normals, offsets, 0, 1)
    assert torch.equal(result.point[~hard], x[~hard])
    assert (result.multipliers[~hard] == 0).all()
    for row in range(20):
        one = alone(row, x, normals, offsets)
        for together, apart in zip(result, one, strict=True):
            assert together[row].numpy() == pytest.approx(apart[0].numpy(), abs=1e-6)


def test_rows_without_a_solution_do_not_disturb_the_others():
    x, normals, offsets = problem(9, points=12)
    wanted = project(x, normals, offsets, 0, 1)
    impossible = torch.arange(12) % 3 == 0
    offsets[impossible] = 1 + normals[impossible].clamp_min(0).sum(2)
    normals[0] = 0
    result = project(x, normals, offsets, 0, 1)
    assert result.point[~impossible].numpy() == pytest.approx(wanted.point[~impossible].numpy(), abs=1e-7)
    assert (result.violation[~impossible] <= 1e-6).all()
    assert (result.violation[impossible] >= 1 - 1e-9).all()
    assert ((result.point >= 0) & (result.point <= 1)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inequalities", [1, 3, 9])
def test_single_precision_comes_to_the_same_point(inequalities, kind):
    x, normals, offsets = problem(10, inequalities=inequalities, kind=kind)
    double = project(x, normals, offsets, 0, 1)
    single = project(x.float(), normals.float(), offsets.float(), 0, 1)
    assert all(values.dtype == torch.float32 for values in single)
    assert single.point.numpy() == pytest.approx(double.point.numpy(), abs=1e-4)
    assert (single.violation <= 1e-4).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), tolerance=st.sampled_from([1e-1, 1e-3]))
def test_a_tolerance_bounds_what_is_left_of_the_violation(seed, tolerance):
    x, normals, offsets = problem(seed)
    before = (offsets - (normals @ x[:, :, None])[:, :, 0]).amax(1)
    result = project(x, normals, offsets, 0, 1, tolerance=tolerance)
    assert (result.violation <= tolerance * before.clamp_min(0) + 1e-12).all()


@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 1.0), (0.2, 0.8)])
def test_other_bounds_are_kept(lower, upper):
    x, normals, _ = problem(11)
    x = lower + (upper - lower) * x
    offsets = (normals @ x.flip(0)[:, :, None])[:, :, 0]
    result = project(x, normals, offsets, lower, upper)
    assert ((result.point >= lower) & (result.point <= upper)).all()
    assert (result.violation <= 1e-6).all()
    unit = project(
        (x - lower) / (upper - lower), normals, (offsets - lower * normals.sum(2)) / (upper - lower), 0, 1
    )
    assert result.point.numpy() == pytest.approx(lower + (upper - lower) * unit.point.numpy(), abs=1e-6)
