"""Sequential quadratic steps: local minima by the optimality
conditions, from anywhere, and never further than before."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import nn

from blindspots.attack import core
from blindspots.attack.core import minimum_distortion, refine
from blindspots.attack.exact import exact_linear
from blindspots.attack.penalty import LBFGS
from blindspots.attack.problem import Problem
from blindspots.attack.sqp import SQP, _as_far_as_it_holds
from blindspots.networks import architectures
from blindspots.solvers.box_lbfgs import CONVERGED

SHAPE, CLASSES = (6, 6), 5
TIGHT = SQP(tolerance=1e-6, max_rounds=60)


def digits(count, seed=1):
    """Like pictures of digits: many pixels lie on the lower bound."""
    drawn = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * drawn - 1).clamp_min(0)


def network_of(activation, units, scale, seed=0):
    network = architectures.fully_connected(SHAPE, [*units, CLASSES], activation).double()
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    for layer in architectures.weight_layers(network):
        layer.weight.data *= scale
    # Each class its share of the images.
    with torch.no_grad():
        network[-1].bias -= network(digits(200, seed=99)).mean(0)
    return architectures.frozen(network)


def next_class(network, images):
    return (network(images).argmax(1) + 1) % CLASSES


def attacked(network, images):
    """Images that the paper's procedure finds adversarial examples
    for: themselves, those, their targets and distortions."""
    targets = next_class(network, images)
    result = minimum_distortion(network, images, targets, method=LBFGS(c_tolerance=0.01))
    done = result.success
    return images[done], result.images[done], targets[done], result.distortion[done]


@pytest.fixture(scope="module")
def sigmoid():
    return network_of("sigmoid", [12, 12], 4)


@pytest.fixture(scope="module")
def kinked():
    return network_of("relu", [20, 20], 1.5)


@pytest.fixture(scope="module")
def refined(sigmoid):
    images, adversarial, targets, distortion = attacked(sigmoid, digits(30))
    assert len(images) >= 20
    return (
        images,
        targets,
        distortion,
        refine(sigmoid, images, adversarial, targets, method=TIGHT, margin=1e-6),
    )


@pytest.fixture(scope="module")
def attacked_kinked(kinked):
    return attacked(kinked, digits(20, seed=4))


# From the adversarial examples of the paper's procedure


def test_it_is_never_further_and_mostly_nearer(refined):
    _, _, before, result = refined
    assert (result.distortion <= before).all()
    assert (result.distortion < 0.999 * before).float().mean() > 0.5


def test_the_images_are_still_of_the_target_in_the_box_at_the_stated_distance(sigmoid, refined):
    images, targets, _, result = refined
    assert result.success.all()
    assert (sigmoid(result.images).argmax(1) == targets).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()
    size = (result.images - images).flatten(1).square().mean(1).sqrt()
    assert size.numpy() == pytest.approx(result.distortion.numpy())


def test_most_end_where_the_optimality_conditions_hold(refined):
    assert refined[3].residual.median() <= 1e-3


def test_no_point_of_the_neighbourhood_is_nearer_and_of_the_target(sigmoid, refined):
    images, targets, _, result = refined
    flat, best = images.flatten(1), result.images.flatten(1)
    length = (best - flat).norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        step = torch.randn(best.shape, generator=generator, dtype=best.dtype)
        near = (best + 0.02 * length * step / step.norm(dim=1, keepdim=True)).clamp(0, 1)
        nearer = (near - flat).norm(dim=1) < 0.99 * length[:, 0]
        assert not ((sigmoid(near.view_as(images)).argmax(1) == targets) & nearer).any()


def test_on_a_linear_classifier_it_comes_to_the_exact_minimum():
    network = network_of("sigmoid", [], 1)
    images, adversarial, targets, before = attacked(network, digits(30))
    exact = exact_linear(network, images, targets)
    result = refine(network, images, adversarial, targets, margin=1e-9)
    assert before.mean() > 1.02 * exact.distortion.mean()  # there is something to refine
    assert result.distortion.numpy() == pytest.approx(exact.distortion.numpy(), rel=1e-3)


def test_convolutional_networks_and_single_precision():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))
    architectures.frozen(network)
    images, adversarial, targets, before = attacked(network, digits(10).float()[:, None])
    assert len(images) >= 5
    result = refine(network, images, adversarial, targets)
    assert result.images.shape == images.shape
    assert result.images.dtype == torch.float32
    assert (network(result.images).argmax(1) == targets).all()
    assert (result.distortion <= before * (1 + 1e-6)).all()


def test_an_image_that_was_the_target_already_stays(sigmoid):
    images = digits(3)
    targets = sigmoid(images).argmax(1)
    for adversarial in (images, digits(3, seed=2)):
        result = refine(sigmoid, images, adversarial, targets)
        assert torch.equal(result.images, images)
        assert (result.distortion == 0).all()
        assert (result.status == core.ALREADY).all()


# From images of another origin


def on_the_way(network, images, targets, towards):
    """The nearest images of the targets on straight lines to
    others that are, by bisection; the other end of each line."""
    pool = network(towards).argmax(1)
    others = torch.stack([towards[pool == target][0] for target in targets])
    low, high = torch.zeros(len(images), 1, 1).double(), torch.ones(len(images), 1, 1).double()
    for _ in range(30):
        middle = (low + high) / 2
        there = network(images + middle * (others - images)).argmax(1) == targets
        low, high = (
            torch.where(there[:, None, None], low, middle),
            torch.where(there[:, None, None], middle, high),
        )
    return images + high * (others - images), others


@pytest.mark.parametrize("name", ["sigmoid", "kinked"])
def test_from_a_straight_line_to_an_image_of_the_target_it_ends_never_further_and_mostly_nearer(
    name, request
):
    network, images = request.getfixturevalue(name), digits(30)
    targets = next_class(network, images)
    direct = minimum_distortion(network, images, targets).distortion
    for adversarial in on_the_way(network, images, targets, digits(300, seed=5)):
        assert (network(adversarial).argmax(1) == targets).all()
        before = (adversarial - images).flatten(1).square().mean(1).sqrt()
        result = refine(network, images, adversarial, targets)
        assert result.success.all()
        assert (network(result.images).argmax(1) == targets).all()
        assert (result.distortion <= before).all()
        assert (result.distortion < 0.9 * before).float().mean() >= 0.9
        assert result.distortion.median().item() == pytest.approx(direct.median().item(), rel=0.1)


def test_images_of_another_class_are_no_success_and_leave_the_original(sigmoid):
    images, others = digits(20), digits(20, seed=2)
    targets = next_class(sigmoid, images)
    of_the_target = sigmoid(others).argmax(1) == targets
    assert 0 < of_the_target.sum() < 20
    result = refine(sigmoid, images, others, targets)
    assert torch.equal(result.success, of_the_target)
    assert torch.equal(result.images[~of_the_target], images[~of_the_target])
    assert result.distortion[~of_the_target].isnan().all()
    assert result.residual[~of_the_target].isnan().all()
    assert (result.status[~of_the_target] == core.NOT_FOUND).all()
    assert (result.gradient_evaluations[~of_the_target] == 0).all()
    assert (result.gradient_evaluations[of_the_target] > 0).all()


@pytest.mark.parametrize("method", [SQP(), SQP(exploration=0)], ids=["SQP", "SQP without exploration"])
@pytest.mark.parametrize("name", ["sigmoid", "kinked"])
def test_one_images_refinement_does_not_depend_on_the_others(name, method, request):
    network = request.getfixturevalue(name)
    images = digits(10)
    targets = next_class(network, images)
    targets[3] = network(images)[3].argmax()
    adversarial, _ = on_the_way(network, images, targets, digits(300, seed=5))
    adversarial[6] = images[6]  # not of the target
    together = refine(network, images, adversarial, targets, method=method)
    assert together.success.tolist() == [row != 6 for row in range(10)]
    for batch in (1, 3):
        parts = refine(network, images, adversarial, targets, method=method, batch=batch)
        assert torch.equal(parts.status, together.status)
        assert parts.images.numpy() == pytest.approx(together.images.numpy(), abs=1e-9)
    for row in (2, 5):
        alone = refine(network, images[[row]], adversarial[[row]], targets[[row]], method=method)
        assert alone.images[0].numpy() == pytest.approx(together.images[row].numpy(), abs=1e-9)


# Optimality


def optimality(network, images, result, margin):
    """By how much each result fails the optimality (KKT)
    conditions of min ½‖r‖², relative to ‖r‖, and its slack."""
    missing, slacks = [], []
    for image, adversarial, target in zip(images, result.images, result.targets, strict=True):
        point = adversarial.clone().requires_grad_()
        logits = network(point[None])[0]
        leads = [logits[target] - logits[other] for other in range(CLASSES) if other != target]
        active = [lead for lead in leads if lead <= 3 * margin + 1e-5]
        slacks.append(min(lead.item() for lead in leads))
        if not active:
            missing.append(np.inf)
            continue
        normals = np.stack(
            [torch.autograd.grad(lead, point, retain_graph=True)[0].flatten().numpy() for lead in active]
        )
        u, r = adversarial.flatten().numpy(), (adversarial - image).flatten().numpy()
        free = (u > 0) & (u < 1)
        multipliers, _ = nnls(normals[:, free].T, r[free])
        left = r - multipliers @ normals
        left = np.where(free, left, np.where(u <= 0, np.minimum(left, 0), np.maximum(left, 0)))
        missing.append(np.linalg.norm(left) / np.linalg.norm(r))
    return np.array(missing), np.array(slacks)


@pytest.mark.parametrize(("activation", "scale"), [("sigmoid", 4), ("tanh", 2)])
def test_results_satisfy_the_optimality_conditions_and_the_residual_says_how_nearly(activation, scale):
    network, images = network_of(activation, [12, 12], scale, seed=2), digits(40, seed=2)
    result = minimum_distortion(network, images, next_class(network, images), method=TIGHT, margin=1e-9)
    assert result.success.all()
    missing, slack = optimality(network, images, result, 1e-9)
    assert (slack >= 0.99e-9).all()
    residual = result.residual.numpy()
    # A multiplier that is nearly 0 belongs to a margin that is
    # nearly active: a few images are told apart differently.
    assert (np.abs(missing - residual) <= 1e-6 + 0.1 * residual).mean() >= 0.9
    assert np.median(missing) <= 1e-4
    assert np.quantile(missing, 0.95) <= 1e-3


@pytest.mark.parametrize(("tolerance", "share"), [(1e-2, 0.9), (1e-3, 0.6)])
def test_most_converge_and_what_is_called_converged_is_within_the_tolerance(sigmoid, tolerance, share):
    images = digits(30)
    method = SQP(tolerance=tolerance, max_rounds=40)
    result = minimum_distortion(sigmoid, images, next_class(sigmoid, images), method=method, margin=1e-7)
    converged = result.status == CONVERGED
    assert converged.float().mean() >= share
    assert torch.equal(result.residual <= tolerance, converged)


def test_more_rounds_are_never_further(sigmoid):
    images = digits(20)
    targets = next_class(sigmoid, images)
    methods = [SQP(exploration=0, max_rounds=rounds) for rounds in (1, 2, 4, 8, 16)]
    sizes = [
        minimum_distortion(sigmoid, images, targets, method=method).distortion.numpy() for method in methods
    ]
    assert (np.diff(sizes, axis=0) <= 1e-12).all()
    assert sizes[-1].mean() < sizes[0].mean()


# Exploration


def test_exploration_makes_results_better_where_a_network_has_kinks(kinked):
    images = digits(40, seed=2)
    targets = next_class(kinked, images)
    none, some = (
        minimum_distortion(kinked, images, targets, method=SQP(exploration=steps)) for steps in (0, 50)
    )
    assert none.success.all()
    assert some.success.all()
    assert some.distortion.mean() <= 0.99 * none.distortion.mean()
    assert (some.distortion < 0.999 * none.distortion).float().mean() >= 0.2


def test_exploration_leaves_what_has_converged_alone(sigmoid):
    images = digits(20)
    targets = next_class(sigmoid, images)
    none, some = (
        minimum_distortion(sigmoid, images, targets, method=SQP(exploration=steps)) for steps in (0, 50)
    )
    converged = none.status == CONVERGED
    assert converged.float().mean() >= 0.5
    assert torch.equal(some.images[converged], none.images[converged])
    assert torch.equal(some.gradient_evaluations[converged], none.gradient_evaluations[converged])


def of_many_kinks():
    """A deeper network, whose gradient changes from point to point."""
    return network_of("relu", [30, 30, 30, 30, 30], 2.5, seed=1)


def test_where_gradients_change_from_point_to_point_their_average_leads_nearer():
    network, images = of_many_kinks(), digits(40, seed=2)
    targets = next_class(network, images)
    methods = [SQP(exploration=100, noise=1.0, momentum=momentum) for momentum in (0.0, 0.8)]
    without, with_ = (minimum_distortion(network, images, targets, method=method) for method in methods)
    assert without.success.all()
    assert with_.success.all()
    assert with_.distortion.mean() <= 0.99 * without.distortion.mean()


@pytest.mark.parametrize("smoothing", [1e-2, 0.3, 5.0])
def test_the_smoothed_lead_is_a_little_below_the_smallest_with_the_gradient_of_its_values(kinked, smoothing):
    images = digits(5)
    problem = Problem(kinked, images, next_class(kinked, images), (0.0, 1.0), 1e-4)
    x, rows = problem.x, problem.rows
    (exact, _), (lead, gradient) = problem.smallest_lead(x, rows), problem.smallest_lead(x, rows, smoothing)
    assert (lead <= exact).all()
    assert (lead >= exact - smoothing * math.log(CLASSES - 1)).all()
    assert (problem.gradient_evaluations == 2).all()

    way = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    change = (
        problem.smallest_lead(x + way, rows, smoothing)[0]
        - problem.smallest_lead(x - way, rows, smoothing)[0]
    )
    assert change.numpy() == pytest.approx(2 * torch.linalg.vecdot(gradient, way).numpy(), rel=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"noise": 0.0}, {"smoothing": 2.0}, {"momentum": 0.0}, {"momentum": 0.9}], ids=str
)
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_no_image_is_further_for_having_been_explored(kinked, steps, options):
    images = digits(40, seed=3)
    targets = next_class(kinked, images)
    none, some = (
        minimum_distortion(kinked, images, targets, method=SQP(exploration=n, **options)) for n in (0, steps)
    )
    assert none.success.all()
    assert (some.distortion <= none.distortion * (1 + 1e-12)).all()


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_refined_images_are_never_further_whatever_the_exploration(kinked, attacked_kinked, steps):
    images, adversarial, targets, before = attacked_kinked
    result = refine(kinked, images, adversarial, targets, method=SQP(exploration=steps))
    assert result.success.all()
    assert (result.distortion <= before).all()


# Competitors


def test_fewer_competitors_cost_fewer_gradients_and_end_as_near():
    network, images = network_of("sigmoid", [], 1), digits(30)
    targets = next_class(network, images)
    exact = exact_linear(network, images, targets, margin=1e-9).distortion
    few, all_ = (
        minimum_distortion(
            network, images, targets, method=SQP(competitors=count, max_rounds=12), margin=1e-9
        )
        for count in (1, CLASSES - 1)
    )
    assert few.distortion.mean().item() == pytest.approx(exact.mean().item(), rel=1e-2)
    assert all_.distortion.numpy() == pytest.approx(exact.numpy(), rel=1e-3)
    assert minimum_distortion(network, images, targets, method=SQP(competitors=99)).success.all()


# Wrong options


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"exploration": -1}, "exploration is -1: it has to be 0 at least"),
        ({"noise": -1.0}, "noise is -1.0: it has to be 0 or larger, and finite"),
        ({"noise": float("nan")}, "noise is nan: it has to be 0 or larger, and finite"),
        ({"noise": float("inf")}, "noise is inf: it has to be 0 or larger, and finite"),
        ({"smoothing": -1.0}, "smoothing is -1.0: it has to be 0 or larger, and finite"),
        ({"smoothing": float("inf")}, "smoothing is inf: it has to be 0 or larger, and finite"),
        ({"momentum": -0.1}, "momentum is -0.1: it has to be at least 0 and less than 1"),
        ({"momentum": 1.0}, "momentum is 1.0: it has to be at least 0 and less than 1"),
        ({"competitors": 0}, "competitors is 0: it has to be 1 at least"),
        ({"max_rounds": 0}, "max_rounds is 0: it has to be 1 at least"),
        ({"tolerance": 0.0}, "tolerance is 0.0: it has to be larger than 0"),
        ({"tolerance": -1e-3}, "tolerance is -0.001: it has to be larger than 0"),
        ({"tolerance": float("nan")}, "tolerance is nan: it has to be larger than 0"),
    ],
)
def test_wrong_options_are_refused_with_the_name_and_the_value(option, message):
    with pytest.raises(ValueError, match=message):
        SQP(**option)


def test_refinement_takes_adversarial_images_like_the_originals_only(sigmoid):
    images, targets = digits(3), torch.tensor([0, 1, 2])
    too_bright = images.clone()
    too_bright[1, 2, 3] = 1.01
    unknown = images.clone()
    unknown[0, 0, 0] = torch.nan
    like = r"the adversarial images are not torch.float64 \(3, 6, 6\), as the originals are"
    cases = [
        (images[:2], like),
        (images.flatten(1), like),
        (images.float(), like),
        (images.numpy(), like),
        (too_bright, r"an adversarial image has a value outside \[0.0, 1.0\]"),
        (unknown, r"an adversarial image has a value outside \[0.0, 1.0\], or NaN"),
    ]
    for adversarial, message in cases:
        with pytest.raises(ValueError, match=message):
            refine(sigmoid, images, adversarial, targets)
    with pytest.raises(ValueError, match=r"an adversarial image has a value outside \[-1.0, 0.99\]"):
        refine(sigmoid, images.clamp_max(0.99), images.clamp_max(0.98) + 0.02, targets, bounds=(-1.0, 0.99))


class Along(nn.Module):
    """Two logits of points (b, 1), whose difference is a function of them."""

    def __init__(self, lead):
        super().__init__()
        self.lead = lead

    def forward(self, x):
        return torch.stack([self.lead(x[:, 0]), torch.zeros_like(x[:, 0])], dim=1)


@pytest.mark.parametrize(
    ("lead", "last"),
    [
        (lambda x: 0.3 - x, 0.3),
        (lambda x: 0.09 - x**2, 0.3),
        (lambda x: 0.3**8 - x**8, 0.3),  # flat at first
        (lambda x: (0.01 - x).clamp_min(-0.1), 0.01),
        (lambda x: torch.where(x < 0.9, 1.0, -1e-3), 0.9),  # no kink, but a jump
    ],
)
def test_a_step_goes_nearly_as_far_as_the_class_does(lead, last):
    here, there, target = (
        torch.zeros(1, 1, dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([0]),
    )
    problem = Problem(Along(lead), here, target, (0.0, 1.0), 0.0)
    first = problem.leads(here, problem.rows).amin(1)
    reached = _as_far_as_it_holds(problem, problem.rows, here, first, there)
    assert problem.holds(reached, problem.rows).all()
    assert 0.9 * last <= reached.item() <= last


def test_a_step_that_stays_in_the_class_goes_all_the_way():
    here, there, target = (
        torch.zeros(1, 1, dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([0]),
    )
    problem = Problem(Along(lambda x: 2 - x), here, target, (0.0, 1.0), 0.0)
    assert _as_far_as_it_holds(problem, problem.rows, here, torch.tensor([2.0]), there) is there
