"""Box-constrained L-BFGS for a batch, against SciPy's bounded least squares on one problem at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minimizing import minimize_in_box
from scipy.optimize import lsq_linear

from blindspots.solvers.box_lbfgs import CONVERGED, NO_DESCENT, OUT_OF_EVALUATIONS, Evaluation

OPTIONS = {"lower": 0.0, "upper": 1.0, "history": 8, "tolerance": 1e-8, "min_decrease": -1, "window": 10}
OPTIONS |= {"max_evaluations": 1000}


def evaluation(value, gradient, value_scale, gradient_scale):
    """Of an objective that has nothing to say aside."""
    return Evaluation(value, gradient, value_scale, gradient_scale, value)


class Quadratics:
    """½ (x - m)ᵀ A (x - m), one A and m for each row, the unconstrained minima in and out of the box."""

    def __init__(self, seed, rows, size, condition=30.0):
        rng = np.random.default_rng(seed)
        self.matrices = np.empty((rows, size, size))
        for row in range(rows):
            basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
            self.matrices[row] = basis * np.geomspace(1, condition, size) @ basis.T
        self.minima = rng.uniform(-0.7, 1.7, (rows, size))
        self.start = torch.from_numpy(rng.uniform(0, 1, (rows, size)))
        self.seen = []

    def __call__(self, points, rows):
        self.seen.append((points.clone(), rows.clone()))
        difference = points - torch.from_numpy(self.minima)[rows]
        gradient = (torch.from_numpy(self.matrices)[rows] @ difference[:, :, None]).squeeze(2)
        value = 0.5 * torch.linalg.vecdot(difference, gradient)
        return evaluation(value, gradient, value, torch.ones(len(points)).double())

    def reference(self, row):
        root = np.linalg.cholesky(self.matrices[row]).T
        return lsq_linear(root, root @ self.minima[row], bounds=(0, 1), method="bvls").x

    def solve(self, **changes):
        ones = torch.ones(len(self.start)).double()
        return minimize_in_box(self, self.start, changes.pop("inverse_curvature", ones), **OPTIONS | changes)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), size=st.integers(1, 12))
def test_box_constrained_quadratics_end_where_scipy_ends(seed, rows, size):
    problem = Quadratics(seed, rows, size)
    result = problem.solve()
    assert (result.status == CONVERGED).all()
    for row in range(rows):
        assert result.x[row].numpy() == pytest.approx(problem.reference(row), abs=1e-6)


def test_some_variables_of_these_problems_are_at_bounds_and_some_are_not():
    # Else the test above would not be about the box.
    x = Quadratics(0, 6, 12).solve().x
    assert ((x == 0) | (x == 1)).any()
    assert ((x > 0) & (x < 1)).any()


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), step=st.sampled_from([1e-6, 1e-2, 1.0, 1e4]))
def test_the_first_step_length_does_not_change_the_minimum(seed, step):
    problem = Quadratics(seed, 3, 6)
    result = problem.solve(inverse_curvature=torch.full((3,), step).double())
    for row in range(3):
        assert result.x[row].numpy() == pytest.approx(problem.reference(row), abs=1e-6)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), history=st.integers(1, 5))
def test_no_point_outside_the_box_is_ever_evaluated_or_returned(seed, history):
    problem = Quadratics(seed, 4, 8)
    result = problem.solve(history=history)
    for points, _ in [*problem.seen, (result.x, None)]:
        assert ((points >= 0) & (points <= 1)).all()


def test_a_start_outside_the_box_is_projected_first():
    problem = Quadratics(1, 3, 5)
    problem.start += 10
    result = problem.solve()
    assert torch.equal(problem.seen[0][0], torch.ones(3, 5).double())
    assert (result.status == CONVERGED).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_a_row_ends_the_same_alone_and_among_others(seed):
    together = Quadratics(seed, 7, 9)
    whole = together.solve()
    for row in (0, 3, 6):
        alone = Quadratics(seed, 7, 9)
        alone.matrices, alone.minima = alone.matrices[[row]], alone.minima[[row]]
        alone.start = alone.start[[row]]
        result = alone.solve()
        assert result.x[0].numpy() == pytest.approx(whole.x[row].numpy(), abs=1e-7)
        assert result.status[0] == whole.status[row]


def test_a_row_that_has_ended_stays_as_it_is_beside_one_that_goes_on():
    # One hard row among easy ones that start at their minima.
    problem = Quadratics(2, 10, 6, condition=1000)
    problem.start[1:] = torch.from_numpy(problem.minima[1:]).clamp(0, 1)
    problem.minima[1:] = problem.start[1:]
    result = problem.solve()
    assert (result.evaluations[1:] == 1).all()
    assert problem.seen[-1][1].tolist() == [0]


def test_evaluations_are_those_made():
    problem = Quadratics(3, 1, 6)
    assert problem.solve().evaluations.tolist() == [len(problem.seen)]


def test_the_residual_is_the_projected_gradient_at_the_returned_point():
    problem = Quadratics(4, 5, 6)
    result = problem.solve(max_evaluations=4)
    _, gradient, *_ = problem(result.x, torch.arange(5))
    binding = ((result.x == 0) & (gradient > 0)) | ((result.x == 1) & (gradient < 0))
    assert binding.any()
    assert not binding.all()
    assert result.residual.numpy() == pytest.approx(gradient.masked_fill(binding, 0).norm(dim=1).numpy())


def test_a_step_where_there_is_no_curvature_does_not_end_the_search():
    """Σ|x - m|, but round within 1e-5 of m: between the
    first two points the gradient stays nearly the same."""

    def objective(points, rows):
        difference = points - minimum
        size = (difference**2 + 1e-10).sqrt()
        return evaluation(size.sum(1), difference / size, size.sum(1), torch.ones(len(points)).double())

    minimum = torch.tensor([[0.4, 0.6, 0.5]]).double()
    start, step = torch.tensor([[0.0, 1.0, 0.0]]).double(), torch.tensor([0.1]).double()
    result = minimize_in_box(objective, start, step, **OPTIONS)
    assert result.status.tolist() == [CONVERGED]
    assert result.x.numpy() == pytest.approx(minimum.numpy(), abs=1e-6)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_objective_makes_no_difference(unit):
    def in_units(points, rows):
        return Evaluation(*(unit * part for part in problem(points, rows)))

    problem = Quadratics(5, 30, 6)
    options = OPTIONS | {"tolerance": 1e-3}
    one = minimize_in_box(problem, problem.start, torch.ones(30).double(), **options)
    other = minimize_in_box(in_units, problem.start, torch.full((30,), 1 / unit).double(), **options)
    assert torch.equal(one.evaluations, other.evaluations)
    assert other.x.numpy() == pytest.approx(one.x.numpy(), abs=1e-6)


def test_a_larger_scale_ends_earlier():
    def scaled(points, rows):
        return problem(points, rows)._replace(gradient_scale=torch.full((len(points),), 1e4).double())

    problem = Quadratics(5, 3, 6)
    strict = problem.solve(tolerance=1e-6)
    loose = minimize_in_box(scaled, problem.start, torch.ones(3).double(), **OPTIONS | {"tolerance": 1e-6})
    assert (loose.evaluations < strict.evaluations).all()
    assert (loose.residual <= 1e-6).all()


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_used_up_evaluations_are_a_status_and_the_limit_holds(limit):
    problem = Quadratics(6, 4, 10, condition=1000)
    result = problem.solve(max_evaluations=limit)
    assert (result.status == OUT_OF_EVALUATIONS).all()
    assert (result.evaluations == limit).all()
    assert len(problem.seen) == limit


def test_at_kinks_rows_that_lower_their_value_too_little_are_given_up():
    minima = torch.from_numpy(np.random.default_rng(0).uniform(0.2, 0.8, (3, 6)))

    def kinked(points, rows):
        difference = points - minima[rows]
        slopes = torch.arange(1, 7)
        value = 1 + (slopes * difference.abs()).sum(1)
        return evaluation(value, slopes * difference.sign(), value, torch.ones(len(rows)).double())

    start, ones = torch.zeros(3, 6).double(), torch.full((3,), 0.01).double()
    found = {
        least: minimize_in_box(kinked, start, ones, **OPTIONS | {"min_decrease": least})
        for least in (-1, 1e-4, 1e-2)
    }
    assert (found[1e-4].status == NO_DESCENT).all()
    assert (found[1e-4].evaluations % 10 == 0).all()
    assert (found[1e-2].evaluations <= found[1e-4].evaluations).all()
    assert (found[1e-4].evaluations < found[-1].evaluations).all()
    values = {least: kinked(result.x, torch.arange(3)).value for least, result in found.items()}
    assert (values[1e-4] <= 0.9 * kinked(start, torch.arange(3)).value).all()
    assert (values[1e-4] >= values[-1] - 1e-9).all()


def test_more_evaluations_are_never_worse():
    values = []
    for limit in range(1, 30):
        problem = Quadratics(7, 3, 10, condition=1000)
        values.append(problem(problem.solve(max_evaluations=limit).x, torch.arange(3)).value.numpy())
    assert (np.diff(values, axis=0) <= 1e-12).all()


def test_a_constant_objective_ends_at_the_start():
    def constant(points, rows):
        ones = torch.ones(len(points))
        return evaluation(ones, torch.zeros_like(points), ones, ones)

    start = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    result = minimize_in_box(constant, start, torch.ones(3), **OPTIONS)
    assert torch.equal(result.x, start)
    assert (result.status == CONVERGED).all()
    assert (result.evaluations == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_gradient_ends_without_claiming_convergence(dtype):
    def uphill(points, rows):
        ones = torch.ones(len(points), dtype=dtype)
        return evaluation(points.sum(1), -torch.ones_like(points), ones, ones)

    start = torch.full((2, 3), 0.5, dtype=dtype)
    result = minimize_in_box(uphill, start, torch.ones(2, dtype=dtype), **OPTIONS)
    assert (result.status != CONVERGED).all()
    # Single precision may go on among points that differ by rounding until its evaluations are used up.
    if dtype == torch.float64:
        assert (result.status == NO_DESCENT).all()
    assert result.x.numpy() == pytest.approx(start.numpy(), abs=1e-4)


def test_a_corner_minimum_is_reached_exactly():
    def slope(points, rows):
        slopes = torch.tensor([1.0, -2.0])
        return evaluation(points @ slopes, slopes.expand_as(points), torch.ones(1), torch.ones(1))

    result = minimize_in_box(slope, torch.tensor([[0.3, 0.3]]), torch.tensor([0.01]), **OPTIONS)
    assert result.x.tolist() == [[0.0, 1.0]]
    assert result.status.tolist() == [CONVERGED]


def test_a_nonconvex_valley_ends_at_its_minimum():
    def rosenbrock(points, rows):
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            value = 100 * (points[:, 1] - points[:, 0] ** 2) ** 2 + (1 - points[:, 0]) ** 2
            (gradient,) = torch.autograd.grad(value.sum(), points)
        value = value.detach()
        return evaluation(value, gradient, value, torch.ones(len(points)).double())

    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [-1.5, -1.5]]).double()
    box = OPTIONS | {"lower": -1.5, "upper": 0.5}
    result = minimize_in_box(rosenbrock, start, torch.full((3,), 1e-3).double(), **box)
    assert (result.status == CONVERGED).all()
    # With x at most ½ the minimum lies on that bound, at y = x².
    assert result.x.numpy() == pytest.approx(np.array([[0.5, 0.25]] * 3), abs=1e-6)
