"""The exact minimum of a linear classifier, and how near the attack comes to it."""

import copy

import pytest
import torch

from blindspots import networks
from blindspots.attack import minimum_distortion
from blindspots.exact import exact_linear

PIXELS = (6, 6)


@pytest.fixture(scope="module")
def softmax():
    network = networks.fully_connected(PIXELS, [10], "sigmoid")
    networks.initialise(network, torch.Generator().manual_seed(0))
    return networks.frozen(network).double()


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


@pytest.mark.parametrize("norm", ["l2", "squared_l2"])
def test_the_attack_is_never_nearer_and_comes_within_a_few_percent(softmax, images, norm):
    # The larger the weights, the more the cross-entropy is like the margin to the nearest class alone.
    softmax = copy.deepcopy(softmax)
    softmax[1].weight.data *= 30
    targets = other_targets(softmax, images)
    exact = exact_linear(softmax, images, targets)
    attack = minimum_distortion(softmax, images, targets, norm=norm, c_tolerance=1e-3)
    both = exact.success & attack.success
    assert both.sum() >= 30
    ratio = attack.distortion[both] / exact.distortion[both]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.mean() <= 1.06


def test_without_targets_the_nearest_other_class_is_taken(softmax, images):
    result = exact_linear(softmax, images)
    now = softmax(images).argmax(1)
    assert (result.targets != now).all()
    every = torch.stack([exact_linear(softmax, images, torch.full_like(now, k)).distortion for k in range(10)], dim=1)
    every = every.nan_to_num(torch.inf).scatter(1, now[:, None], torch.inf)
    assert result.distortion.numpy() == pytest.approx(every.amin(1).numpy())
    assert torch.equal(result.targets, every.argmin(1))


def test_a_class_out_of_reach_is_told(softmax, images):
    network = networks.fully_connected(PIXELS, [3], "sigmoid").double()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    result = exact_linear(network, images, torch.zeros(len(images), dtype=torch.long))
    assert not result.success.any()
    assert result.distortion.isnan().all()
    assert torch.equal(result.images, images)


def test_a_network_with_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="2 layers with weights: an exact minimum needs a single linear one"):
        exact_linear(networks.fully_connected(PIXELS, [5, 3], "sigmoid"), torch.rand(1, *PIXELS))
