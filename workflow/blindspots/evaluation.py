"""What a network says of images, apart from whatever made them."""

import torch
from torch import Tensor, nn

from blindspots.distortions import distortion

PIXELS = 2**22  # at once, of at most 1,000 images


@torch.no_grad()
def logits(network: nn.Module, images: Tensor, batch: int | None = None) -> Tensor:
    """The (n, k) logits of (n, ...) images, so many at a time, by itself as many as take little memory."""
    batch = batch or max(1, min(1000, PIXELS // images[0].numel()))
    return torch.cat([network(part) for part in images.split(batch)])


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """The class with the largest logit for each of (n, ...) images: (n,) int64."""
    return logits(network, images).argmax(1)


def outcome(
    network: nn.Module, originals: Tensor, adversarial: Tensor, targets: Tensor, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[Tensor, Tensor]:
    """What an attack came to, measured on its (n, ...) images alone.

    Success (n,) bool: the network calls the image the target, with finite logits, and no pixel is out of bounds. Distortion
    (n,), NaN without success.
    """
    inside = ((adversarial >= bounds[0]) & (adversarial <= bounds[1])).flatten(1).all(dim=1)
    said = logits(network, adversarial)
    success = (said.argmax(1) == targets) & said.isfinite().all(1) & inside
    size = torch.from_numpy(distortion(originals.cpu().numpy(), adversarial.cpu().numpy())).to(originals)
    return success, torch.where(success, size, torch.nan)
