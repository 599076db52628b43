"""The success and the distortion of an attack, measured on its images alone."""

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
    """Measure the success and the distortion of an attack on its images alone.

    Args:
        network: The network, which returns logits (n, k).
        originals: The original images, (n, ...).
        adversarial: The adversarial images, (n, ...).
        targets: The target classes, (n,), integers.
        bounds: The smallest and the largest pixel value.
    Returns:
        The success, (n,), bool, and the distortion, (n,). A success has finite logits, the target as the
        predicted class and no pixel outside the bounds. The distortion is the root mean square (Section 4.2),
        in the units of the pixels. It is NaN without success.
    """
    inside = ((adversarial >= bounds[0]) & (adversarial <= bounds[1])).flatten(1).all(dim=1)
    said = logits(network, adversarial)
    success = (said.argmax(1) == targets) & said.isfinite().all(1) & inside
    size = torch.from_numpy(distortion(originals.cpu().numpy(), adversarial.cpu().numpy())).to(originals)
    return success, torch.where(success, size, torch.nan)
