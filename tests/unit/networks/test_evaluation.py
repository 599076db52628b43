"""What a network says of images, and what an attack came to."""

import numpy as np
import pytest
import torch

from blindspots.attack.outcome import outcome
from blindspots.networks import architectures
from blindspots.networks.evaluation import classify, logits


@pytest.mark.parametrize("batch", [1, 4, 11, 100])
def test_the_answer_is_the_class_of_the_largest_logit_whatever_the_batch(batch):
    network = architectures.fully_connected([6], [5, 4], "sigmoid")
    architectures.initialise(network, torch.Generator().manual_seed(0))
    images = torch.rand(11, 2, 3, generator=torch.Generator().manual_seed(1))
    answers = logits(network, images, batch).argmax(1)
    assert answers.dtype == torch.int64
    wanted = [max(range(4), key=lambda k: logits[k]) for logits in network(images).tolist()]
    assert answers.tolist() == wanted


def test_no_gradients_are_kept():
    seen = []

    def network(images):
        seen.append(torch.is_grad_enabled())
        return images

    classify(network, torch.rand(2, 3))
    assert seen == [False]


def brightest(images):
    """A network that calls an image the number of its brightest pixel."""
    return images.flatten(1)


def pictures(dtype=torch.float64):
    """Six originals of class 0 and as many that became class 1, (6, 2, 2)."""
    originals = torch.rand(6, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    adversarial = torch.rand(6, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 2
    originals[:, 0, 0], adversarial[:, 0, 1] = 0.75, 0.75
    return originals.to(dtype), adversarial.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distortion_is_the_root_mean_square_of_the_difference(dtype):
    originals, adversarial = pictures(dtype)
    success, distortion = outcome(brightest, originals, adversarial, torch.ones(6, dtype=torch.long))
    assert success.tolist() == [True] * 6
    assert distortion.dtype == dtype
    wanted = np.sqrt(np.mean((adversarial.numpy() - originals.numpy()) ** 2, axis=(1, 2)))
    assert distortion.numpy() == pytest.approx(wanted, rel=1e-6 if dtype == torch.float32 else 1e-14)


def test_an_image_of_another_class_is_no_success_and_has_no_distortion():
    originals, adversarial = pictures()
    targets = torch.tensor([1, 0, 1, 2, 1, 3])
    success, distortion = outcome(brightest, originals, adversarial, targets)
    assert success.tolist() == [True, False, True, False, True, False]
    assert distortion.isnan().tolist() == [False, True, False, True, False, True]


@pytest.mark.parametrize("value", [-1e-7, 1 + 1e-6, torch.nan, torch.inf, -torch.inf])
def test_a_pixel_out_of_bounds_or_nan_is_no_success(value):
    originals, adversarial = pictures(torch.float32)
    adversarial[2, 1, 1] = value
    targets = classify(brightest, adversarial)  # so that what fails is the pixel alone
    success, distortion = outcome(brightest, originals, adversarial, targets)
    assert success.tolist() == [True, True, False, True, True, True]
    assert distortion.isnan().tolist() == [False, False, True, False, False, False]


def test_the_bounds_belong_to_the_box_and_may_be_others():
    originals, adversarial = pictures()
    adversarial[0, 1, 0], adversarial[1, 0, 1], adversarial[2, 0, 1] = 0.0, 1.0, 2.0
    ones = torch.ones(6, dtype=torch.long)
    assert outcome(brightest, originals, adversarial, ones)[0].tolist() == [
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    assert outcome(brightest, originals, adversarial, ones, (0.0, 2.0))[0].all()
    assert not outcome(brightest, originals, adversarial, ones, (0.1, 0.7))[0].any()


def test_the_original_itself_has_distortion_zero():
    originals, _ = pictures()
    success, distortion = outcome(brightest, originals, originals, torch.zeros(6, dtype=torch.long))
    assert success.all()
    assert (distortion == 0).all()
