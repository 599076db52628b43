"""The exact minimum of a linear classifier, and how near the attacks come to it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn
from torch.nn.functional import cross_entropy

from blindspots.attack.core import minimum_distortion
from blindspots.attack.exact import exact_linear
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP
from blindspots.networks import architectures

PIXELS = (6, 6)


@pytest.fixture(scope="module")
def softmax():
    network = architectures.fully_connected(PIXELS, [10], "sigmoid")
    architectures.initialise(network, torch.Generator().manual_seed(0))
    return architectures.frozen(network).double()


@pytest.fixture(scope="module")
def images():
    # Like pictures of digits: many pixels lie on the lower bound.
    drawn = torch.rand(40, *PIXELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (2 * drawn - 1).clamp_min(0)


def other_targets(network, images):
    return (network(images).argmax(1) + 1 + torch.arange(len(images)) % 9) % 10


def test_the_images_are_of_the_class_in_the_box_at_the_stated_distance(softmax, images):
    targets = other_targets(softmax, images)
    result = exact_linear(softmax, images, targets, margin=1e-6)
    assert result.success.any()
    assert (softmax(result.images).argmax(1) == targets)[result.success].all()
    assert ((result.images >= 0) & (result.images <= 1)).all()
    size = (result.images - images).flatten(1).square().mean(1).sqrt()
    assert size[result.success].numpy() == pytest.approx(result.distortion[result.success].numpy())


def test_nothing_nearer_is_possible(softmax, images):
    result = exact_linear(softmax, images, other_targets(softmax, images))
    assert result.gap[result.success].max() <= 1e-6


def test_without_targets_the_nearest_other_class_is_taken(softmax, images):
    result = exact_linear(softmax, images)
    now = softmax(images).argmax(1)
    assert (result.targets != now).all()
    every = torch.stack(
        [exact_linear(softmax, images, torch.full_like(now, k)).distortion for k in range(10)], dim=1
    )
    every = every.nan_to_num(torch.inf).scatter(1, now[:, None], torch.inf)
    assert result.distortion.numpy() == pytest.approx(every.amin(1).numpy())
    assert torch.equal(result.targets, every.argmin(1))


def test_a_class_out_of_reach_is_told(softmax, images):
    network = architectures.fully_connected(PIXELS, [3], "sigmoid").double().eval()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    result = exact_linear(network, images, torch.zeros(len(images), dtype=torch.long))
    assert not result.success.any()
    assert result.distortion.isnan().all()
    assert torch.equal(result.images, images)


def test_a_network_with_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="2 layers with weights: an exact minimum needs a single linear one"):
        exact_linear(architectures.fully_connected(PIXELS, [5, 3], "sigmoid").eval(), torch.rand(1, *PIXELS))


@pytest.mark.parametrize("more", ["before", "after"])
def test_a_network_that_is_more_than_its_linear_layer_is_refused(more, images):
    layer = nn.Linear(images[0].numel(), 3).double()
    layer.weight.data *= 10  # not to be taken for probabilities
    parts = (
        (nn.Flatten(), nn.Hardtanh(0.4, 0.6), layer) if more == "before" else (nn.Flatten(), layer, nn.ReLU())
    )
    with pytest.raises(ValueError, match="the model is more than its linear layer on the pixels"):
        exact_linear(nn.Sequential(*parts).eval(), images)


def test_a_target_that_the_model_has_not_is_refused(softmax, images):
    with pytest.raises(ValueError, match="target 99 is none of the model's 10 classes"):
        exact_linear(softmax, images, torch.full((len(images),), 99))


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (lambda x: 255 * x, {}, r"an image has a value outside \[0.0, 1.0\], or NaN"),
        (lambda x: x * torch.nan, {}, "or NaN"),
        (lambda x: x[:0], {}, "there are no images"),
        (lambda x: x.float(), {}, "the model does not take torch.float32 images"),
        (lambda x: x, {"bounds": (1, 0)}, "give the smaller one first"),
        (lambda x: x, {"targets": torch.zeros(3, dtype=torch.long)}, "give one class for each of 40 images"),
    ],
)
def test_what_has_no_meaning_is_refused(softmax, images, change, options, why):
    with pytest.raises(ValueError, match=why):
        exact_linear(softmax, change(images), **options)


@pytest.mark.parametrize("kind", ["within", "on bounds", "black and white"])
@pytest.mark.parametrize("classes", [4, 10])
def test_of_few_pixels_and_many_classes_what_can_be_reached_is_found(classes, kind):
    """As SciPy's linear programming tells by the largest lead of the target in the box."""
    generator = torch.Generator().manual_seed(classes)
    layer = nn.Linear(4, classes).double()
    wrong = []
    for _ in range(30):
        layer.weight.data = torch.randn(classes, 4, generator=generator, dtype=torch.float64)
        layer.bias.data = 0.3 * torch.randn(classes, generator=generator, dtype=torch.float64)
        x = torch.rand(classes, 4, generator=generator, dtype=torch.float64)
        x = {"within": x, "on bounds": (2 * x - 0.5).clamp(0, 1), "black and white": (x > 0.5).double()}[kind]
        found = exact_linear(nn.Sequential(nn.Flatten(), layer).eval(), x, torch.arange(classes))
        assert (found.gap[found.success] < 1e-6).all()
        for target in range(classes):
            others = [k for k in range(classes) if k != target]
            normals, offsets = (
                v[target] - v[others] for v in (layer.weight.detach().numpy(), layer.bias.detach().numpy())
            )
            # The largest t for which all leads are t at least.
            rows = np.column_stack([-normals, np.ones(classes - 1)])
            lead = -linprog(
                [0, 0, 0, 0, -1], A_ub=rows, b_ub=offsets, bounds=[(0, 1)] * 4 + [(None, None)]
            ).fun
            if abs(lead) > 1e-6 and (lead > 0) != found.success[target]:
                wrong.append((target, lead))
    assert wrong == []


# The attacks

CLASSES = 5


def classifier(seed, size):
    """A random linear classifier that calls each class about as often as the others."""
    network = architectures.fully_connected(PIXELS, [CLASSES], "sigmoid").double()
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    network[1].weight.data *= size
    with torch.no_grad():
        network[1].bias -= network(pictures(seed + 1, 200, "on bounds")).mean(0)
    return architectures.frozen(network)


def pictures(seed, count, kind):
    """With many pixels on the bounds, as pictures have them, or with all."""
    drawn = torch.rand(count, *PIXELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * drawn - 0.5).clamp(0, 1) if kind == "on bounds" else (drawn > 0.5).double()


def next_classes(network, images):
    return (network(images).argmax(1) + 1 + torch.arange(len(images)) % (CLASSES - 1)) % CLASSES


def never_below(attack, exact):
    """Nothing but rounding and what the exact minimum itself is unsure of."""
    both = attack.success & exact.success
    return (attack.distortion >= exact.distortion - exact.gap - 1e-9)[both].all()


MARGIN = 1e-9  # in logits, so that the margin itself makes no difference
KINDS = ("on bounds", "black and white")


@pytest.mark.parametrize("method", [SQP(), SQP(exploration=0)], ids=["SQP", "SQP without exploration"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@example(seed=159069, size=1.0)  # the step before the last is cut short by a fourth class
@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.3, 1.0, 30.0]))
def test_quadratic_steps_come_within_a_thousandth_of_the_exact_minimum(kind, method, seed, size):
    network, images = classifier(seed, size), pictures(seed, 10, kind)
    targets = next_classes(network, images)
    exact = exact_linear(network, images, targets, margin=MARGIN)
    attack = minimum_distortion(network, images, targets, method=method, margin=MARGIN)
    assert torch.equal(attack.success, exact.success)
    assert never_below(attack, exact)
    assert attack.distortion.numpy() == pytest.approx(exact.distortion.numpy(), rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("norm", ["l2", "squared_l2"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5)
@given(seed=st.integers(0, 10**6))
def test_the_papers_procedure_minimises_its_objective_at_the_largest_c_that_succeeds(kind, norm, seed):
    """So that it is as near to the exact minimum as the cross-entropy
    allows, in whose place a linear network has a lead."""
    network, images = classifier(seed, 30.0), pictures(seed, 10, kind)
    targets = next_classes(network, images)
    exact = exact_linear(network, images, targets, margin=MARGIN)
    attack = minimum_distortion(network, images, targets, method=LBFGS(norm=norm), margin=MARGIN)
    assert torch.equal(attack.success, exact.success)
    assert never_below(attack, exact)

    def penalty(points):
        return attack.c * (points - images).flatten(1).norm(dim=1) ** {"l2": 1, "squared_l2": 2}[norm]

    def loss(points):
        return cross_entropy(network(points), targets, reduction="none")

    found, least = penalty(attack.images) + loss(attack.images), penalty(exact.images) + loss(exact.images)
    assert (found <= least + 1e-4 * penalty(exact.images))[exact.success].all()
    assert (loss(attack.images) >= math.log(2) - 0.01)[
        exact.success
    ].all()  # at the border another class is as likely
    assert attack.distortion[exact.success].mean() <= 1.02 * exact.distortion[exact.success].mean()
    # Very near the border a small way past it is a large part of the distortion.
    assert (attack.distortion <= 1.1 * exact.distortion + 0.005)[exact.success].all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.3, 1.0, 30.0]))
def test_the_nearest_class_is_that_of_the_exact_minimum_without_targets(kind, seed, size):
    network, images = classifier(seed, size), pictures(seed, 8, kind)
    exact = exact_linear(network, images, margin=MARGIN)
    attack = minimum_distortion(network, images, "nearest", margin=MARGIN)
    assert attack.success.all()
    assert exact.success.all()
    assert never_below(attack, exact)
    assert attack.distortion.numpy() == pytest.approx(exact.distortion.numpy(), rel=1e-3)
    # Two classes may be as near as each other.
    theirs = exact_linear(network, images, attack.targets, margin=MARGIN).distortion
    assert theirs.numpy() == pytest.approx(exact.distortion.numpy(), rel=1e-3)


@pytest.mark.parametrize("norm", ["l2", "squared_l2"])
def test_the_papers_procedure_finds_the_nearest_class_too(norm):
    network, images = classifier(3, 30.0), pictures(3, 10, "on bounds")
    exact = exact_linear(network, images, margin=MARGIN)
    attack = minimum_distortion(network, images, "nearest", method=LBFGS(norm=norm), margin=MARGIN)
    assert never_below(attack, exact)
    assert attack.distortion.numpy() == pytest.approx(exact.distortion.numpy(), rel=0.03)
    assert (attack.targets == exact.targets).float().mean() >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_with_all_pixels_on_the_bounds_have_an_exact_minimum(kind):
    network, images = classifier(0, 1.0), pictures(0, 40, kind)
    targets = next_classes(network, images)
    exact = exact_linear(network, images, targets)
    assert exact.success.all()
    # The same problem with the pixels a little away from their bounds.
    within = exact_linear(network, images.clamp(1e-7, 1 - 1e-7), targets)
    assert exact.distortion.numpy() == pytest.approx(within.distortion.numpy(), abs=1e-6)


def test_a_margin_is_led_by_and_makes_the_minimum_larger():
    network, images = classifier(1, 1.0), pictures(1, 20, "on bounds")
    targets = next_classes(network, images)
    none, some = (exact_linear(network, images, targets, margin=margin) for margin in (0.0, 0.1))
    both = none.success & some.success
    assert both.sum() >= 10
    top = network(some.images[both]).topk(2).values
    assert (top[:, 0] - top[:, 1] >= 0.1 - 1e-6).all()
    assert (some.distortion > none.distortion)[both].all()


def test_other_bounds_are_another_unit_of_the_pixels():
    network, images = classifier(2, 1.0), pictures(2, 20, "on bounds")
    targets = next_classes(network, images)
    doubled = classifier(2, 1.0)
    doubled[1].bias.data += doubled[1].weight.sum(1) / 2
    doubled[1].weight.data /= 2
    one = exact_linear(network, images, targets)
    two = exact_linear(doubled, 2 * images - 1, targets, bounds=(-1.0, 1.0))
    assert torch.equal(one.success, two.success)
    assert two.distortion.numpy() == pytest.approx(2 * one.distortion.numpy(), rel=1e-6, nan_ok=True)
