"""D(x, l) against closed forms, and what an attack promises of its result."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from blindspots import attack, networks
from blindspots.attack import minimum_distortion, nearest_distortion
from blindspots.lbfgs import CONVERGED, minimize_in_box

NORMS = ("l2", "squared_l2")
PIXELS = 16


def small_network(seed=0, shape=(PIXELS, 12, 4), dtype=torch.float64, scale=3.0):
    """A random sigmoid network, with weights large enough that its answers differ between images."""
    network = networks.fully_connected(shape[:1], shape[1:], "sigmoid")
    networks.initialise(network, torch.Generator().manual_seed(seed))
    for layer in networks.weight_layers(network):
        layer.weight.data *= scale
    # Each class its share of the images.
    network.to(dtype)
    with torch.no_grad():
        network[-1].bias -= network(random_images(200, shape[0], dtype=dtype)).mean(0)
    return networks.frozen(network)


def random_images(count, *shape, seed=1, dtype=torch.float64):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def other_targets(network, images):
    logits = network(images)
    return (logits.argmax(1) + 1 + torch.arange(len(images)) % (logits.shape[1] - 1)) % logits.shape[1]


def linear(seed, pixels=PIXELS, size=1.0, dtype=torch.float64):
    """A linear classifier of two classes: its weights' difference w and offset b, and the network."""
    generator = torch.Generator().manual_seed(seed)
    network = networks.fully_connected([pixels], [2], "sigmoid")
    network[1].weight.data = size * torch.randn(2, pixels, generator=generator)
    network[1].bias.data.zero_()
    network.to(dtype)
    w = (network[1].weight[1] - network[1].weight[0]).detach()
    network[1].bias.data[1] = -0.5 * w.sum()  # the hyperplane goes through the middle of the box
    return w, networks.frozen(network)


def exact_in_box(x, w, b, sign):
    """The smallest distortion with sign (w·x' + b) ≥ 0 and x' in [0, 1]: x' = clip(x + t sign w), by bisection in t."""
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        reached = sign * (w @ np.clip(x + t * sign * w, 0, 1) + b) >= 0
        low, high = (low, t) if reached else (t, high)
    return np.sqrt(np.mean((np.clip(x + high * sign * w, 0, 1) - x) ** 2))


# Against closed forms


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.3, 1.0, 5.0]))
def test_a_linear_classifier_gives_the_distance_to_the_hyperplane(norm, seed, size):
    w, network = linear(seed, size=size)
    # So near to the middle of the box that the bounds play no part.
    images = 0.4 + 0.2 * random_images(6, PIXELS, seed=seed)
    offset = (images - 0.5) @ w
    wanted = offset.abs() / w.norm() / PIXELS**0.5
    result = minimum_distortion(network, images, (offset < 0).long(), norm=norm)
    assert result.success.all()
    # The search knows c to 1 %, and a success leads by a margin of 1e-4 logits.
    margin = 1e-4 / w.norm().item() / PIXELS**0.5
    # Near the hyperplane the lead is at most about 2 % of c's range, 0.04 logits of overshoot at the worst.
    overshoot = 0.04 / w.norm().item() / PIXELS**0.5
    assert (result.distortion >= wanted + 0.99 * margin).all()
    assert (result.distortion <= 1.001 * wanted + overshoot).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_finer_search_over_c_comes_to_the_closed_form(norm):
    w, network = linear(3)
    images = 0.4 + 0.2 * random_images(8, PIXELS)
    offset = (images - 0.5) @ w
    wanted = offset.abs() / w.norm() / PIXELS**0.5
    fine = {"c_tolerance": 1e-4, "tolerance": 1e-6, "margin": 1e-6, "max_searches": 60}
    result = minimum_distortion(network, images, (offset < 0).long(), norm=norm, **fine)
    assert result.distortion.numpy() == pytest.approx(wanted.numpy(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_box_is_active_the_constrained_minimum_is_found(norm):
    w, network = linear(5, pixels=12)
    images = (random_images(10, 12, seed=5) > 0.5).double()  # black and white, so that many pixels cannot move
    bias = float(-0.5 * w.sum())
    offset = (images @ w + bias).numpy()
    wanted = np.array([exact_in_box(x, w.numpy(), bias, -np.sign(o)) for x, o in zip(images.numpy(), offset, strict=True)])
    assert (wanted > 1.05 * np.abs(offset) / w.norm().item() / 12**0.5).sum() >= 5  # the box matters in these problems
    result = minimum_distortion(network, images, torch.from_numpy(offset < 0).long(), norm=norm)
    assert result.success.all()
    # 1 % of c is at most 0.04 logits of overshoot, which counts where the border is very near.
    overshoot = 0.04 / w.norm().item() / 12**0.5
    assert (result.distortion.numpy() >= wanted).all()
    assert result.distortion.numpy() == pytest.approx(wanted, rel=0.01, abs=overshoot)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("strength", [0.03, 0.3])
def test_the_penalised_objective_at_fixed_c_ends_where_scipy_ends(norm, strength):
    network, images = small_network(), random_images(4, PIXELS)
    targets = other_targets(network, images)
    problem = attack._Problem(network, images, targets, norm, (0.0, 1.0))
    _, slope = problem.loss(images, torch.arange(4))
    c = strength * slope.norm(dim=1)
    objective = problem.objective(c)
    options = {"lower": 0.0, "upper": 1.0, "history": 8, "tolerance": 1e-7, "max_evaluations": 2000}
    ours = minimize_in_box(objective, images, 0.1 * torch.ones(4).double(), **options)
    assert (ours.status == CONVERGED).all()
    for row in range(4):

        def function(x, row=row):
            value, gradient, _ = objective(torch.from_numpy(x)[None], torch.tensor([row]))
            return value.item(), gradient[0].numpy()

        # From our end SciPy finds nothing lower nearby, and from the image nothing lower anywhere.
        options = {"ftol": 0, "gtol": 1e-9, "maxiter": 2000}
        mine = function(ours.x[row].numpy())[0]
        for start in (ours.x[row], images[row]):
            found = minimize(function, start.numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * PIXELS, options=options)
            assert mine <= found.fun + 1e-7


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_of_the_penalised_objective_is_its_derivative(norm):
    network, images = small_network(), random_images(3, PIXELS)
    problem = attack._Problem(network, images, other_targets(network, images), norm, (0.0, 1.0))
    objective = problem.objective(torch.full((3,), 0.7).double())
    rows, points = torch.arange(3), random_images(3, PIXELS, seed=9)
    direction = torch.randn(3, PIXELS, generator=torch.Generator().manual_seed(4)).double()
    ahead, behind = (objective(points + sign * 1e-5 * direction, rows).value for sign in (1, -1))
    slope = torch.linalg.vecdot(objective(points, rows).gradient, direction)
    assert ((ahead - behind) / 2e-5).numpy() == pytest.approx(slope.numpy(), rel=1e-6)


# What is promised of every result


@pytest.fixture(scope="module", params=NORMS)
def attacked(request):
    network, images = small_network(), random_images(20, PIXELS)
    targets = other_targets(network, images)
    return network, images, targets, minimum_distortion(network, images, targets, norm=request.param)


def test_found_images_are_classified_as_the_target(attacked):
    network, _, targets, result = attacked
    assert result.success.all()
    assert torch.equal(network(result.images).argmax(1), targets)


def test_found_images_lead_by_the_margin(attacked):
    network, _, _, result = attacked
    logits = network(result.images)
    top = logits.topk(2).values
    assert (top[:, 0] - top[:, 1] >= 0.99e-4).all()


def test_results_lie_in_the_box(attacked):
    _, _, _, result = attacked
    assert ((result.images >= 0) & (result.images <= 1)).all()


def test_the_distortion_is_that_of_the_returned_images(attacked):
    _, images, _, result = attacked
    wanted = (result.images - images).square().mean(1).sqrt()
    assert result.distortion.numpy() == pytest.approx(wanted.numpy(), rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_no_shorter_step_in_the_same_direction_would_do(norm):
    # For nearly all, where c is known finely: the minimum for one c need not lie on the border.
    network, images = small_network(), random_images(20, PIXELS)
    targets = other_targets(network, images)
    result = minimum_distortion(network, images, targets, norm=norm, c_tolerance=1e-4, max_searches=60)
    shorter = images + 0.95 * (result.images - images)
    assert (network(shorter).argmax(1) != targets).float().mean() >= 0.9


def test_no_random_image_as_near_is_classified_as_the_target(attacked):
    network, images, targets, result = attacked
    length = (result.images - images).norm(dim=1, keepdim=True)
    for seed in range(30):
        step = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).double()
        near = (images + 0.97 * length * step / step.norm(dim=1, keepdim=True)).clamp(0, 1)
        assert not (network(near).argmax(1) == targets).any()


def test_both_norms_end_at_about_the_same_distortion():
    network, images = small_network(), random_images(20, PIXELS)
    targets = other_targets(network, images)
    one, two = (minimum_distortion(network, images, targets, norm=norm).distortion for norm in NORMS)
    # Both are local searches, which may end at different minima for a few images.
    assert one.median().item() == pytest.approx(two.median().item(), rel=0.03)
    assert one.mean().item() == pytest.approx(two.mean().item(), rel=0.05)


def test_evaluations_are_counted():
    counted = small_network()
    calls = []
    counted.register_forward_hook(lambda module, inputs, output: calls.append(len(output)) if output.requires_grad else None)
    images = random_images(5, PIXELS)
    result = minimum_distortion(counted, images, other_targets(counted, images))
    # Rows that have ended may be computed along with others for a while, and are not counted for these images.
    assert 5 * 2 < result.gradient_evaluations.sum() <= sum(calls)
    single = images[:1]
    calls.clear()
    assert minimum_distortion(counted, single, other_targets(counted, single)).gradient_evaluations.item() == sum(calls)


def test_the_inputs_are_left_alone():
    network, images = small_network(), random_images(5, PIXELS)
    targets = other_targets(network, images)
    before, asked = images.clone(), targets.clone()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    minimum_distortion(network, images, targets)
    assert torch.equal(images, before)
    assert torch.equal(targets, asked)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_the_same_call_gives_the_same_bytes():
    network, images = small_network(dtype=torch.float32), random_images(10, PIXELS, dtype=torch.float32)
    targets = other_targets(network, images)
    one, two = (minimum_distortion(network, images, targets).images for _ in range(2))
    assert torch.equal(one, two)


def test_parameters_with_gradients_are_no_trouble_and_get_none():
    network, images = small_network().requires_grad_(True), random_images(3, PIXELS)
    result = minimum_distortion(network, images, other_targets(network, images))
    assert not result.images.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


# Invariances


def near(one, other):
    """Two results that differ by no more than the search over c allows."""
    assert torch.equal(one.success, other.success)
    assert one.distortion.numpy() == pytest.approx(other.distortion.numpy(), rel=0.01, nan_ok=True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_batch_size_changes_nothing_but_rounding(norm, batch):
    network, images = small_network(), random_images(8, PIXELS)
    targets = other_targets(network, images)
    whole = minimum_distortion(network, images, targets, norm=norm)
    parts = minimum_distortion(network, images, targets, norm=norm, batch=batch)
    near(whole, parts)
    assert parts.images.shape == images.shape


def test_permuted_images_give_permuted_results():
    network, images = small_network(), random_images(12, PIXELS)
    targets = other_targets(network, images)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    whole = minimum_distortion(network, images, targets)
    permuted = minimum_distortion(network, images[order], targets[order])
    near(type(whole)(*(values[order] for values in whole)), permuted)


def test_a_constant_added_to_all_logits_changes_nothing_but_rounding():
    network, images = small_network(), random_images(10, PIXELS)
    targets = other_targets(network, images)
    raised = small_network()
    raised[-1].bias.data += 5
    near(minimum_distortion(network, images, targets), minimum_distortion(raised, images, targets))


def test_permuted_pixels_change_nothing_but_rounding():
    network, images = small_network(), random_images(6, PIXELS)
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(0))
    turned = small_network()
    turned[1].weight.data = turned[1].weight.data[:, order]
    targets = other_targets(network, images)
    near(minimum_distortion(network, images, targets), minimum_distortion(turned, images[:, order], targets))


def test_other_bounds_are_another_unit_of_the_pixels():
    # Pixels in [-1, 1] in place of [0, 1]: the same problem with all distances doubled.
    network, images = small_network(), random_images(6, PIXELS)
    doubled = nn.Sequential(nn.Flatten(), Halve(), *list(network)[1:]).eval()
    targets = other_targets(network, images)
    one = minimum_distortion(network, images, targets)
    two = minimum_distortion(doubled, 2 * images - 1, targets, bounds=(-1.0, 1.0))
    assert two.success.all()
    assert two.distortion.numpy() == pytest.approx(2 * one.distortion.numpy(), rel=0.02)


class Halve(nn.Module):
    def forward(self, x):
        return (x + 1) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_precision_of_the_images(dtype):
    network, images = small_network(dtype=dtype), random_images(4, PIXELS, dtype=dtype)
    result = minimum_distortion(network, images, other_targets(network, images))
    assert result.success.all()
    assert result.images.dtype == result.distortion.dtype == dtype


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4)])
def test_images_of_other_shapes_into_a_convolutional_network(shape):
    torch.manual_seed(0)
    convolution = nn.Conv2d(shape[0], 4, 3)
    network = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(4 * (shape[1] - 2) ** 2, 5)).eval()
    images = random_images(6, *shape, dtype=torch.float32)
    targets = other_targets(network, images)
    result = minimum_distortion(network, images, targets)
    assert result.images.shape == images.shape
    assert result.success.all()
    assert torch.equal(network(result.images).argmax(1), targets)
    wanted = (result.images - images).flatten(1).square().mean(1).sqrt()
    assert result.distortion.numpy() == pytest.approx(wanted.detach().numpy(), rel=1e-4)


# Images without an adversarial example, and images that need none


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_that_is_the_target_already_has_distortion_zero(norm):
    network, images = small_network(), random_images(6, PIXELS)
    targets = other_targets(network, images)
    targets[2] = network(images)[2].argmax()
    result = minimum_distortion(network, images, targets, norm=norm)
    assert result.status[2] == attack.ALREADY
    assert result.success[2]
    assert result.distortion[2] == 0
    assert torch.equal(result.images[2], images[2])
    assert (result.status == attack.ALREADY).sum() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_that_never_says_the_target_is_counted_as_not_found(norm, dtype):
    network = networks.frozen(networks.fully_connected([PIXELS], [3], "sigmoid")).to(dtype)
    network[1].weight.data.zero_()
    network[1].bias.data = torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
    images = random_images(4, PIXELS, dtype=dtype)
    result = minimum_distortion(network, images, torch.tensor([1, 2, 1, 0]), norm=norm)
    assert result.success.tolist() == [False, False, False, True]
    assert result.status.tolist() == [attack.NOT_FOUND] * 3 + [attack.ALREADY]
    assert result.distortion[:3].isnan().all()
    assert torch.equal(result.images, images)
    assert (result.gradient_evaluations[:3] > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_target_out_of_reach_of_the_box_is_not_found(norm):
    w, network = linear(1)
    network[1].bias.data[1] = -2 * w.abs().sum()  # no image in the box gets to class 1
    images = random_images(4, PIXELS)
    result = minimum_distortion(network, images, torch.ones(4, dtype=torch.long), norm=norm)
    assert not result.success.any()
    assert result.distortion.isnan().all()
    assert torch.equal(result.images, images)


def test_one_impossible_image_does_not_hold_up_the_others():
    w, network = linear(1)
    images = random_images(4, PIXELS)
    offset = (images - 0.5) @ w
    targets = (offset < 0).long()
    alone = minimum_distortion(network, images[1:], targets[1:])
    targets[0] = 1 - targets[0]
    together = minimum_distortion(network, images, targets)
    assert together.distortion[1:].numpy() == pytest.approx(alone.distortion.numpy(), rel=0.01)


def test_a_search_that_may_not_go_on_says_so():
    network, images = small_network(), random_images(10, PIXELS)
    result = minimum_distortion(network, images, other_targets(network, images), max_searches=1, max_evaluations=1)
    assert not result.success.any()
    assert (result.status == attack.NOT_FOUND).all()
    assert torch.equal(result.images, images)


def test_every_status_of_a_result_has_a_text(attacked):
    _, _, _, result = attacked
    assert set(result.status.tolist()) <= set(attack.STATUS)


# The nearest class


@pytest.mark.parametrize("norm", NORMS)
def test_nearest_is_the_minimum_over_the_allowed_classes(norm):
    network, images = small_network(), random_images(8, PIXELS)
    answers = network(images).argmax(1)
    allowed = torch.arange(4)[None, :] != answers[:, None]
    allowed[1] = torch.arange(4) == (answers[1] + 1) % 4
    best, target = nearest_distortion(network, images, allowed, norm=norm)
    assert best.success.all()
    assert target[1] == (answers[1] + 1) % 4
    for row in range(8):
        classes = allowed[row].nonzero().squeeze(1)
        each = minimum_distortion(network, images[row].expand(len(classes), -1).clone(), classes, norm=norm)
        assert best.distortion[row].item() == pytest.approx(each.distortion.min().item(), rel=0.01)
        assert target[row] in classes
        assert network(best.images[[row]]).argmax() == target[row]
    assert (best.images - images).square().mean(1).sqrt().numpy() == pytest.approx(best.distortion.numpy())


def test_nearest_counts_the_evaluations_of_all_classes():
    network, images = small_network(), random_images(3, PIXELS)
    allowed = torch.arange(4)[None, :] != network(images).argmax(1)[:, None]
    best, _ = nearest_distortion(network, images, allowed)
    total = torch.zeros(3, dtype=torch.long)
    for target in range(4):
        rows = allowed[:, target].nonzero().squeeze(1)
        if len(rows):
            result = minimum_distortion(network, images[rows], torch.full_like(rows, target))
            total[rows] += result.gradient_evaluations
    # About: rounding differs with what is computed together, and moves a line search by a few evaluations.
    assert best.gradient_evaluations.numpy() == pytest.approx(total.numpy(), rel=0.1)


def test_nearest_refuses_an_image_without_an_allowed_class_and_names_it():
    network, images = small_network(), random_images(3, PIXELS)
    allowed = torch.ones(3, 4, dtype=torch.bool)
    allowed[1] = False
    with pytest.raises(ValueError, match="image 1 has no allowed target class"):
        nearest_distortion(network, images, allowed)


def test_nearest_where_no_class_can_be_reached_finds_nothing():
    w, network = linear(1)
    network[1].bias.data[1] = -2 * w.abs().sum()  # no image in the box gets to class 1
    images = random_images(3, PIXELS)
    best, target = nearest_distortion(network, images, torch.tensor([[False, True]] * 3))
    assert not best.success.any()
    assert best.distortion.isnan().all()
    assert torch.equal(best.images, images)
    assert target.tolist() == [1, 1, 1]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_nearest_does_not_depend_on_the_batch_size(batch):
    network, images = small_network(), random_images(5, PIXELS)
    allowed = torch.arange(4)[None, :] != network(images).argmax(1)[:, None]
    whole, wanted = nearest_distortion(network, images, allowed)
    parts, target = nearest_distortion(network, images, allowed, batch=batch)
    near(whole, parts)
    assert torch.equal(target, wanted)


# Wrong input


def test_wrong_input_is_refused_with_the_reason():
    network, images, targets = small_network(), random_images(3, PIXELS), torch.tensor([0, 1, 2])
    cases = [
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"targets": targets[:2]}, r"targets are torch.int64 \(2,\): give one class for each of 3 images"),
        ({"targets": torch.tensor([0, 1, 4])}, "not one of the model's 4 classes"),
        ({"targets": torch.tensor([0, 1, -1])}, "not one of the model's 4 classes"),
        ({"images": images + 0.5}, r"outside \[0.0, 1.0\]"),
        ({"images": images - 0.5}, r"outside \[0.0, 1.0\]"),
        ({"images": images.where(images > 0.1, torch.nan)}, "NaN"),
        ({"images": images, "bounds": (0.4, 0.6)}, r"outside \[0.4, 0.6\]"),
        ({"images": images[:0], "targets": targets[:0]}, "no images"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            minimum_distortion(network, **{"images": images, "targets": targets} | changes)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"training mode: call model.eval\(\) first"):
        minimum_distortion(small_network().train(), random_images(1, PIXELS), torch.tensor([0]))


def test_progress_is_reported_with_what_is_done():
    lines = []
    network, images = small_network(), random_images(5, PIXELS)
    targets = other_targets(network, images)
    minimum_distortion(network, images, targets, batch=2, report=lambda text, *values: lines.append(text % values))
    assert [line.split(",")[0] for line in lines] == ["2 of 5 images", "4 of 5 images", "5 of 5 images"]
