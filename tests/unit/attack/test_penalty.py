"""The paper's procedure: its penalised objective against SciPy, its search over c against closed forms."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minimizing import minimize_in_box
from scipy.optimize import minimize
from torch import nn

from blindspots.attack import core, penalty
from blindspots.attack.core import minimum_distortion
from blindspots.attack.penalty import LBFGS, _Penalty, search
from blindspots.attack.problem import Problem
from blindspots.networks import architectures
from blindspots.solvers.box_lbfgs import CONVERGED
from blindspots.solvers.reproducible_sums import AS_THEY_ARE

NORMS = ("l2", "squared_l2")
PIXELS = 16


def small_network(seed=0, shape=(PIXELS, 12, 4), scale=3.0, activation="sigmoid"):
    """A random network, with weights large enough that its answers differ between images."""
    network = architectures.fully_connected(shape[:1], shape[1:], activation).double()
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    for layer in architectures.weight_layers(network):
        layer.weight.data *= scale
    # Each class its share of the images.
    with torch.no_grad():
        network[-1].bias -= network(random_images(200, shape[0])).mean(0)
    return architectures.frozen(network)


def random_images(count, *shape, seed=1):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def other_targets(network, images):
    logits = network(images)
    return (logits.argmax(1) + 1 + torch.arange(len(images)) % (logits.shape[1] - 1)) % logits.shape[1]


def problem(images=4, seed=0, activation="sigmoid"):
    network, drawn = small_network(seed, activation=activation), random_images(images, PIXELS, seed=seed + 1)
    return Problem(network, drawn, other_targets(network, drawn), (0.0, 1.0), 1e-4)


def penalised(asked, rows, c, norm):
    """c|r| + loss(x + r, l) as a function of points x + r of some of the problems `rows`."""
    penalty = _Penalty(norm == "l2", asked.lower, asked.upper, AS_THEY_ARE)

    def objective(points, some):
        return penalty.of(asked.loss(points, rows[some]), points, points - asked.x[rows[some]], c[some])

    return objective


# The penalised objective


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), strength=st.sampled_from([0.03, 0.3]))
def test_the_penalised_objective_at_fixed_c_ends_where_scipy_ends(norm, seed, strength):
    asked = problem(seed=seed)
    _, slope, _ = asked.loss(asked.x, asked.rows)
    objective = penalised(asked, asked.rows, strength * slope.norm(dim=1), norm)
    options = {"lower": 0.0, "upper": 1.0, "history": 8, "tolerance": 1e-7, "min_decrease": -1, "window": 10}
    options |= {"max_evaluations": 2000}
    ours = minimize_in_box(objective, asked.x, 0.1 * torch.ones(4).double(), **options)
    assert (ours.status == CONVERGED).all()
    for row in range(4):

        def function(x, row=row):
            value, gradient, *_ = objective(torch.from_numpy(x)[None], torch.tensor([row]))
            return value.item(), gradient[0].numpy()

        # From our end SciPy finds nothing lower nearby.
        options = {"ftol": 0, "gtol": 1e-9, "maxiter": 2000}
        mine, start = function(ours.x[row].numpy())[0], ours.x[row].numpy()
        found = minimize(
            function, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * PIXELS, options=options
        )
        assert mine <= found.fun + 1e-7


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("strength", [0.03, 0.3])
def test_from_the_images_scipy_comes_to_nothing_lower(norm, strength):
    # With these seeds. Others may have several minima, of which either can find the lower one.
    asked = problem()
    _, slope, _ = asked.loss(asked.x, asked.rows)
    objective = penalised(asked, asked.rows, strength * slope.norm(dim=1), norm)
    options = {"lower": 0.0, "upper": 1.0, "history": 8, "tolerance": 1e-7, "min_decrease": -1, "window": 10}
    options |= {"max_evaluations": 2000}
    ours = minimize_in_box(objective, asked.x, 0.1 * torch.ones(4).double(), **options)
    for row in range(4):

        def function(x, row=row):
            value, gradient, *_ = objective(torch.from_numpy(x)[None], torch.tensor([row]))
            return value.item(), gradient[0].numpy()

        options = {"ftol": 0, "gtol": 1e-9, "maxiter": 2000}
        start = asked.x[row].numpy()
        found = minimize(
            function, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * PIXELS, options=options
        )
        assert function(ours.x[row].numpy())[0] <= found.fun + 1e-7


@pytest.mark.parametrize("norm", NORMS)
def test_the_penalised_objective_is_c_times_the_norm_and_the_loss(norm):
    asked, points = problem(), random_images(4, PIXELS, seed=9)
    c = torch.tensor([0.1, 0.7, 2.0, 5.0]).double()
    size = (points - asked.x).square().sum(1) ** (0.5 if norm == "l2" else 1.0)
    value, _, value_scale, gradient_scale, _ = penalised(asked, asked.rows, c, norm)(points, asked.rows)
    losses, *_ = asked.loss(points, asked.rows)
    assert value.numpy() == pytest.approx((c * size + losses).numpy())
    assert value_scale.numpy() == pytest.approx((c * size).numpy())
    assert gradient_scale.numpy() == pytest.approx((c if norm == "l2" else 2 * c * size.sqrt()).numpy())


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_of_the_penalised_objective_is_its_derivative(norm):
    asked, points = problem(images=3), random_images(3, PIXELS, seed=9)
    objective = penalised(asked, asked.rows, torch.full((3,), 0.7).double(), norm)
    direction = torch.randn(3, PIXELS, generator=torch.Generator().manual_seed(4)).double()
    ahead, behind = (objective(points + sign * 1e-5 * direction, asked.rows).value for sign in (1, -1))
    slope = torch.linalg.vecdot(objective(points, asked.rows).gradient, direction)
    assert ((ahead - behind) / 2e-5).numpy() == pytest.approx(slope.numpy(), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_rows_have_their_own_c(norm):
    asked, points = problem(), random_images(4, PIXELS, seed=9)
    some, c = torch.tensor([3, 1]), torch.tensor([0.1, 0.7, 2.0, 5.0]).double()
    whole = penalised(asked, asked.rows, c, norm)(points, asked.rows)
    part = penalised(asked, asked.rows, c, norm)(points[some], some)
    for one, other in zip(part, whole, strict=True):
        assert one.numpy() == pytest.approx(other[some].numpy())
    # The rows of the objective may themselves be of only some of the problems.
    part = penalised(asked, some, c[some], norm)(points[some], torch.arange(2))
    for one, other in zip(part, whole, strict=True):
        assert one.numpy() == pytest.approx(other[some].numpy())


@pytest.mark.parametrize(("factor", "leaves"), [(1.01, False), (0.99, True)])
def test_the_kink_at_the_image_holds_it_where_c_outweighs_the_slope(factor, leaves):
    asked = problem()
    _, gradient, _ = asked.loss(asked.x, asked.rows)
    # Pixels inside the box, so that all of the gradient can be followed.
    assert ((asked.x > 0) & (asked.x < 1)).all()
    objective = penalised(asked, asked.rows, factor * gradient.norm(dim=1), "l2")
    _, at_the_image, *_ = objective(asked.x, asked.rows)
    wanted = torch.where(torch.tensor(leaves), (1 - factor) * gradient, 0)
    assert at_the_image.numpy() == pytest.approx(wanted.numpy(), abs=1e-12)


# The search over c


def hyperplane(seed, size=1.0):
    """A linear classifier of two classes, images near the middle of the box, so that the bounds
    play no part, their targets on the other side, and the distortions that lead to the border."""
    generator = torch.Generator().manual_seed(seed)
    network = architectures.fully_connected([PIXELS], [2], "sigmoid").double()
    network[1].weight.data = size * torch.randn(2, PIXELS, generator=generator).double()
    w = (network[1].weight[1] - network[1].weight[0]).detach()
    network[1].bias.data = torch.stack([torch.zeros(()).double(), -0.5 * w.sum()])
    images = 0.4 + 0.2 * random_images(8, PIXELS, seed=seed)
    offset = (images - 0.5) @ w
    return architectures.frozen(network), images, (offset < 0).long(), offset.abs() / w.norm() / PIXELS**0.5


@pytest.mark.parametrize("norm", NORMS)
def test_a_finer_search_over_c_comes_to_the_closed_form(norm):
    network, images, targets, wanted = hyperplane(3)
    fine = LBFGS(norm=norm, c_tolerance=1e-4, tolerance=1e-6, max_searches=60)
    result = minimum_distortion(network, images, targets, method=fine, margin=1e-6)
    assert result.distortion.numpy() == pytest.approx(wanted.numpy(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_the_distortion_is_no_coarser_than_the_search_over_c(norm):
    network, images = small_network(), random_images(20, PIXELS)
    targets = other_targets(network, images)
    sizes = []
    for tolerance in (0.3, 1e-3, 1e-4):
        method = LBFGS(norm=norm, c_tolerance=tolerance, max_searches=60)
        sizes.append(minimum_distortion(network, images, targets, method=method).distortion.mean().item())
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] >= 1.005 * sizes[1]
    assert sizes[1] <= 1.01 * sizes[2]


@pytest.mark.parametrize("norm", NORMS)
def test_more_searches_are_never_further(norm):
    # With kinks, where not every success is nearer than those before.
    network, images = small_network(scale=1.5, activation="relu"), random_images(20, PIXELS, seed=0)
    targets, sizes = other_targets(network, images), []
    for searches in range(2, 24, 2):
        method = LBFGS(norm=norm, c_tolerance=1e-4, max_searches=searches, max_evaluations=30, rounded=True)
        sizes.append(
            minimum_distortion(network, images, targets, method=method)
            .distortion.nan_to_num(torch.inf)
            .numpy()
        )
    assert (sizes[-1] < sizes[0]).any()
    assert all((later <= sooner).all() for sooner, later in itertools.pairwise(sizes))


@pytest.mark.parametrize("norm", NORMS)
def test_the_image_is_the_minimum_for_the_c_that_is_returned(norm):
    asked = problem(images=10)
    found = search(asked, LBFGS(norm=norm, tolerance=1e-5, looseness=1))
    assert found.reached.all()
    assert (found.status == CONVERGED).float().mean() >= 0.8
    objective = penalised(asked, asked.rows, found.c, norm)
    value, gradient, _, scale, _ = objective(found.points, asked.rows)
    residual = (found.points - (found.points - gradient).clamp(0, 1)).norm(dim=1) / scale
    assert residual.numpy() == pytest.approx(found.residual.numpy(), rel=1e-3, abs=1e-9)
    assert (residual[found.status == CONVERGED] <= 1.001e-5).all()
    assert (value <= objective(asked.x, asked.rows).value).all()


@pytest.mark.parametrize("norm", NORMS)
def test_no_shorter_step_in_the_same_direction_would_do(norm):
    # For nearly all, where c is known finely: the minimum for one c need not lie on the border.
    network, images = small_network(), random_images(20, PIXELS)
    targets = other_targets(network, images)
    method = LBFGS(norm=norm, c_tolerance=1e-4, max_searches=60)
    result = minimum_distortion(network, images, targets, method=method)
    shorter = images + 0.95 * (result.images - images)
    assert (network(shorter).argmax(1) != targets).float().mean() >= 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_looser_tolerances_while_c_is_known_little_cost_less_and_lead_hardly_further(norm):
    network, images = small_network(), random_images(60, PIXELS)
    targets = other_targets(network, images)
    exact, loose = (
        minimum_distortion(network, images, targets, method=LBFGS(norm=norm, looseness=looseness))
        for looseness in (1, 10)
    )
    assert loose.success.all()
    assert loose.gradient_evaluations.sum() < 0.95 * exact.gradient_evaluations.sum()
    assert loose.distortion.mean() <= 1.01 * exact.distortion.mean()


def test_both_norms_end_at_about_the_same_distortion():
    network, images = small_network(), random_images(20, PIXELS)
    targets = other_targets(network, images)
    one, two = (
        minimum_distortion(network, images, targets, method=LBFGS(norm=norm)).distortion for norm in NORMS
    )
    # Both are local searches, which may end at different minima for a few images.
    assert one.median().item() == pytest.approx(two.median().item(), rel=0.03)
    assert one.mean().item() == pytest.approx(two.mean().item(), rel=0.05)


def test_a_search_that_may_not_go_on_says_so():
    network, images = small_network(), random_images(10, PIXELS)
    method = LBFGS(max_searches=1, max_evaluations=1)
    result = minimum_distortion(network, images, other_targets(network, images), method=method, margin=2.0)
    assert not result.success.any()
    assert (result.status == core.NOT_FOUND).all()
    assert torch.equal(result.images, images)
    assert result.c.isnan().all()


def test_no_more_than_the_allowed_gradients_are_used():
    asked = problem(images=6)
    search(asked, LBFGS(max_searches=3, max_evaluations=5))
    assert (asked.gradient_evaluations <= 1 + 3 * 5).all()


def test_an_image_costs_as_many_gradients_beside_others_as_alone():
    asked = problem(images=20, activation="relu")
    search(asked, LBFGS(rounded=True))
    for row in asked.rows:
        search(alone := asked.subset(row[None]), LBFGS(rounded=True))
        assert alone.gradient_evaluations == asked.gradient_evaluations[row]


class WithoutSlope(nn.Module):
    """A network whose gradient is no number where a pixel, of those that are told, has a value."""

    def __init__(self, network, pixels, value):
        super().__init__()
        self.network, self.pixels, self.value = network, pixels, value

    def forward(self, x):
        return self.network(x) + 0 * (x[:, self.pixels] - self.value).abs().sqrt().sum(1, keepdim=True)


def test_a_gradient_that_is_no_number_ends_one_minimisation_and_not_the_next_ones():
    network, images = small_network(), random_images(60, PIXELS)
    network[-1].bias.zero_()  # some classes are rare, and far: many minimisations come to a bound
    targets = (network(images).argmax(1) + 1) % 4
    at_the_bound = WithoutSlope(network, slice(None), 0.0).eval()
    assert minimum_distortion(at_the_bound, images, targets, method=LBFGS()).success.double().mean() >= 0.8


@pytest.mark.parametrize("rounded", [False, True])
def test_an_image_that_its_first_c_holds_where_it_is_gets_away_with_a_smaller_one(rounded):
    # Of the loss's gradient all but a small part points out of the box: 0.4 of its norm outweighs the rest.
    network = architectures.frozen(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double())
    network[1].weight[:], network[1].bias[:] = 0, torch.tensor([2.0, 0.0, -9.0])
    network[1].weight[1] = torch.tensor([*[-10.0] * 9, 3.0, -3.0, 5.0])
    images = torch.zeros(40, 12, dtype=torch.float64)
    images[:, 9:] = 0.3 + 0.4 * torch.rand(
        40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    result = minimum_distortion(network, images, torch.ones(40).long(), method=LBFGS(rounded=rounded))
    assert result.success.all()


def test_an_image_without_a_gradient_spoils_none_of_those_that_take_its_place(monkeypatch):
    monkeypatch.setattr(penalty, "IN_WORK", 2)
    network, images = small_network(), random_images(8, PIXELS)
    images[0, 0] = 0.5
    targets = other_targets(network, images)
    method = LBFGS(rounded=True)
    result = minimum_distortion(WithoutSlope(network, slice(1), 0.5).eval(), images, targets, method=method)
    wanted = minimum_distortion(network, images, targets, method=method)
    assert not result.success[0]
    assert torch.equal(result.images[1:], wanted.images[1:])


def test_a_search_leaves_the_problem_as_it_is(monkeypatch):
    monkeypatch.setattr(penalty, "IN_WORK", 2)
    asked = problem(images=7)
    x, targets = asked.x.clone(), asked.targets.clone()
    search(asked, LBFGS())
    assert asked.rows.tolist() == [*range(7)]
    assert torch.equal(asked.x, x)
    assert torch.equal(asked.targets, targets)


def test_images_that_are_done_are_not_computed_any_more(monkeypatch):
    """One image needs many searches, beside those that are there at the first."""
    asked = problem(images=40)
    counts, loss = [], Problem.loss
    monkeypatch.setattr(
        Problem, "loss", lambda self, points, rows: counts.append(len(rows)) or loss(self, points, rows)
    )
    search(asked, LBFGS())
    assert counts[0] == 40
    assert min(counts) < 40 * penalty.DROP_BELOW
    assert sum(counts) < 1.5 * asked.gradient_evaluations.sum()


@pytest.mark.parametrize("norm", NORMS)
def test_rounded_examples_are_the_same_whatever_the_order_of_the_pixels(norm):
    asked = problem(images=20, activation="relu")
    shuffled = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(3))
    again = problem(images=20, activation="relu")
    again.x = again.x[:, shuffled]
    first = architectures.weight_layers(again.model)[0]
    first.weight.data = first.weight[:, shuffled]

    def same(rounded):
        points, others = (search(these, LBFGS(norm=norm, rounded=rounded)).points for these in (asked, again))
        return (points[:, shuffled] == others).all(dim=1)

    assert same(True).all()
    assert not same(False).any()  # by a last digit at least


# Wrong options


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"norm": "l1"}, "norm is 'l1': use 'l2' or 'squared_l2'"),
        ({"history": 0}, "history is 0: it has to be 1 at least"),
        ({"max_searches": 0}, "max_searches is 0: it has to be 1 at least"),
        ({"window": 0}, "window is 0: it has to be 1 at least"),
        ({"looseness": 0.5}, "looseness is 0.5: it has to be 1 at least"),
        ({"max_evaluations": -3}, "max_evaluations is -3: it has to be 1 at least"),
        ({"c_tolerance": 0.0}, "c_tolerance is 0.0: it has to be larger than 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0: it has to be larger than 0"),
        ({"c_tolerance": float("nan")}, "c_tolerance is nan: it has to be larger than 0"),
        ({"tolerance": float("nan")}, "tolerance is nan: it has to be larger than 0"),
        ({"c_growth": 1.0}, "c_growth is 1.0: it has to be larger than 1"),
        ({"c_growth": float("nan")}, "c_growth is nan: it has to be larger than 1"),
    ],
)
def test_wrong_options_are_refused_with_the_name_and_the_value(option, message):
    with pytest.raises(ValueError, match=message):
        LBFGS(**option)
