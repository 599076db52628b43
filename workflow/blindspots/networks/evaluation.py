"""What a network says of images, apart from whatever made them."""

import torch
from torch import Tensor, nn

PIXELS = 2**22  # at once, of at most 1,000 images


@torch.no_grad()
def logits(network: nn.Module, images: Tensor, batch: int | None = None) -> Tensor:
    """The (n, k) logits of (n, ...) images, so many at a time, by itself as many as take little memory."""
    batch = batch or max(1, min(1000, PIXELS // images[0].numel()))
    return torch.cat([network(part) for part in images.split(batch)])


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """The class with the largest logit for each of (n, ...) images: (n,) int64."""
    return logits(network, images).argmax(1)
