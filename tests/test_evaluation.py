"""What a network says of images."""

import pytest
import torch

from blindspots import networks
from blindspots.evaluation import classify, logits


@pytest.mark.parametrize("batch", [1, 4, 11, 100])
def test_the_answer_is_the_class_of_the_largest_logit_whatever_the_batch(batch):
    network = networks.fully_connected([6], [5, 4], "sigmoid")
    networks.initialise(network, torch.Generator().manual_seed(0))
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
