"""The refinement: never further than before, still of the target's class, and at the exact minimum where that is known."""

import pytest
import torch
from torch import nn

from blindspots import networks
from blindspots.attack import minimum_distortion
from blindspots.exact import exact_linear
from blindspots.refine import refine

SHAPE = (6, 6)


def digits(count, seed=1):
    """Like pictures of digits: many pixels lie on the lower bound."""
    drawn = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * drawn - 1).clamp_min(0)


def attacked(network, images):
    targets = (network(images).argmax(1) + 1) % 5
    result = minimum_distortion(network, images, targets)
    done = result.success
    return images[done], result.images[done], targets[done], result.distortion[done]


@pytest.fixture(scope="module")
def sigmoid():
    network = networks.fully_connected(SHAPE, [12, 12, 5], "sigmoid").double()
    networks.initialise(network, torch.Generator().manual_seed(0))
    for layer in networks.weight_layers(network):
        layer.weight.data *= 4
    return networks.frozen(network)


@pytest.fixture(scope="module")
def refined(sigmoid):
    images, adversarial, targets, distortion = attacked(sigmoid, digits(30))
    assert len(images) >= 20
    return images, targets, distortion, refine(sigmoid, images, adversarial, targets, margin=1e-6, max_rounds=40)


def test_it_is_never_further_and_mostly_nearer(refined):
    _, _, before, result = refined
    assert (result.distortion <= before).all()
    assert (result.distortion < 0.999 * before).float().mean() > 0.5


def test_the_images_are_still_of_the_target_in_the_box_at_the_stated_distance(sigmoid, refined):
    images, targets, _, result = refined
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
    network = networks.fully_connected(SHAPE, [5], "sigmoid").double()
    networks.initialise(network, torch.Generator().manual_seed(0))
    networks.frozen(network)
    images, adversarial, targets, before = attacked(network, digits(30))
    exact = exact_linear(network, images, targets)
    result = refine(network, images, adversarial, targets, margin=1e-9)
    assert before.mean() > 1.02 * exact.distortion.mean()  # there is something to refine
    assert result.distortion.numpy() == pytest.approx(exact.distortion.numpy(), rel=1e-3)


def test_the_batch_size_changes_nothing_but_rounding(sigmoid):
    images, adversarial, targets, _ = attacked(sigmoid, digits(12))
    one, all_ = (refine(sigmoid, images, adversarial, targets, batch=batch).distortion for batch in (1, 100))
    assert one.numpy() == pytest.approx(all_.numpy(), rel=1e-6)


def test_convolutional_networks_and_single_precision():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    networks.frozen(network)
    images, adversarial, targets, before = attacked(network, digits(10).float()[:, None])
    result = refine(network, images, adversarial, targets)
    assert result.images.shape == images.shape
    assert result.images.dtype == torch.float32
    assert (network(result.images).argmax(1) == targets).all()
    assert (result.distortion <= before * (1 + 1e-6)).all()


def test_an_image_that_was_the_target_already_stays(sigmoid):
    images = digits(3)
    targets = sigmoid(images).argmax(1)
    result = refine(sigmoid, images, images, targets)
    assert torch.equal(result.images, images)
    assert (result.distortion == 0).all()


def test_images_of_another_class_are_refused(sigmoid):
    images = digits(3)
    with pytest.raises(ValueError, match="3 images are not of their target's class"):
        refine(sigmoid, images, images, (sigmoid(images).argmax(1) + 1) % 5)
