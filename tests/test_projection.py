"""The projection onto a few half-spaces and a box, against an independent solver and its own optimality conditions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from blindspots.projection import project


def problem(seed, points=6, inequalities=3, pixels=20):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(points, pixels, generator=generator, dtype=torch.float64)
    normals = torch.randn(points, inequalities, pixels, generator=generator, dtype=torch.float64)
    feasible = torch.rand(points, pixels, generator=generator, dtype=torch.float64)
    return x, normals, (normals @ feasible[:, :, None])[:, :, 0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), inequalities=st.integers(1, 9))
def test_the_solution_satisfies_the_optimality_conditions(seed, inequalities):
    x, normals, offsets = problem(seed, inequalities=inequalities)
    result = project(x, normals, offsets, 0, 1)
    slack = (normals @ result.point[:, :, None])[:, :, 0] - offsets
    assert (result.violation <= 1e-6).all()
    assert (result.multipliers >= 0).all()
    assert (result.multipliers * slack).abs().max() <= 1e-6
    assert torch.equal(result.point, (x + (result.multipliers[:, None] @ normals)[:, 0]).clamp(0, 1))
    primal = 0.5 * (result.point - x).square().sum(1)
    assert primal.numpy() == pytest.approx(result.dual.numpy(), abs=1e-6)


@pytest.mark.parametrize("inequalities", [1, 3, 9])
def test_the_distance_is_that_of_an_independent_solver(inequalities):
    x, normals, offsets = problem(1, inequalities=inequalities)
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
        assert 0.5 * np.sum((result.point[row].numpy() - start) ** 2) == pytest.approx(wanted.fun, rel=1e-6, abs=1e-9)


def test_a_point_that_satisfies_all_stays():
    x, normals, _ = problem(2)
    offsets = (normals @ x[:, :, None])[:, :, 0] - 0.1
    assert torch.equal(project(x, normals, offsets, 0, 1).point, x)


def test_what_no_point_of_the_box_satisfies_keeps_its_violation():
    x, normals, _ = problem(3, inequalities=1)
    beyond = normals.clamp_min(0).sum(2) + 1  # the most that the box allows, and 1 more
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
