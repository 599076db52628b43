"""The outputs of a network for images from any source."""

import torch
from torch import Tensor, nn

# A batch has at most this number of pixel values by default, and at most 1,000 images.
PIXELS = 2**22


@torch.no_grad()
def logits(network: nn.Module, images: Tensor, batch: int | None = None) -> Tensor:
    """Compute the logits of images, batch by batch and without gradients.

    Args:
        network: The network, which returns logits.
        images: The images, (n, ...), with at least one image.
        batch: The number of images in a batch. By default it is small enough to need little memory.
    Returns:
        The logits, (n, k).
    """
    batch = batch or max(1, min(1000, PIXELS // images[0].numel()))
    return torch.cat([network(part) for part in images.split(batch)])


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Find the class with the largest logit for each image.

    Args:
        network: The network, which returns logits.
        images: The images, (n, ...), with at least one image.
    Returns:
        The classes, (n,), int64.
    """
    return logits(network, images).argmax(1)
