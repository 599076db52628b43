"""What an attack came to, measured on its images alone."""

import torch
from torch import Tensor, nn

from blindspots.data.distortions import distortion
from blindspots.networks.evaluation import logits


def outcome(
    network: nn.Module,
    originals: Tensor,
    adversarial: Tensor,
    targets: Tensor,
    bounds: tuple[float, float] = (0.0, 1.0),
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
