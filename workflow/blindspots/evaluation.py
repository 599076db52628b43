"""What a network says of images, apart from whatever made them."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def logits(network: nn.Module, images: Tensor, batch: int = 1000) -> Tensor:
    """The (n, k) logits of (n, ...) images."""
    return torch.cat([network(part) for part in images.split(batch)])


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """The class with the largest logit for each of (n, ...) images: (n,) int64."""
    return logits(network, images).argmax(1)
