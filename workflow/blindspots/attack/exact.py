"""The exact D(x, l) of a linear softmax classifier, as a reference for testing attacks.

The network classifies x + r as l when every margin (w_l - w_j)·(x + r) + b_l - b_j is at least 0. For a
linear f, the problem of Section 4.1 therefore has k - 1 linear inequalities and the box. It is a small convex
problem.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from blindspots.attack.checks import as_module, as_numbers, check_classes, check_inputs, without_rounding
from blindspots.networks.architectures import weight_layers
from blindspots.solvers.projection import project


class Exact(NamedTuple):
    """The exact minima for b images.

    Where there is no success, the dual proves it, except for cases that depend on rounding.

    Attributes:
        images: The nearest images, (b, ...), float64. An image is the original without success.
        success: Whether the box contains an image where the target leads by the margin, (b,), bool.
        distortion: The root mean square of r, (b,), in the units of the pixels. NaN without success.
        gap: The duality gap, (b,), in the units of the distortion. It is the most by which the true minimum
            can be smaller. NaN without success.
        targets: The target classes, (b,), integers.
    """

    images: Tensor
    success: Tensor
    distortion: Tensor
    gap: Tensor
    targets: Tensor


@torch.no_grad()
def exact_linear(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    margin: float = 0.0,
    batch: int = 1000,
) -> Exact:
    """Find the nearest images that a linear classifier assigns to the targets.

    This is the exact D(x, l) (Section 4.1).

    Args:
        model: One linear layer on the flattened pixels, like the paper's softmax networks.
        images: The original images, (b, ...), within the bounds.
        targets: The target classes, (b,), integers. Without them, the result is the nearest image of any
            class other than the predicted one.
        bounds: The smallest and the largest pixel value, which define the box.
        margin: The lead in logits that the target needs over all other classes.
        batch: The number of images that are processed at the same time.
    Returns:
        The exact minima for b images.
    Raises:
        ValueError: If the model is not one linear layer, or if no attack can be made on the input.
    """
    model, bounds = as_module(model), as_numbers(bounds)
    images = without_rounding(images, bounds)
    classes = check_inputs(model, images, bounds, margin, batch)
    if targets is not None:
        check_classes("target", targets, images, classes)
    layers = weight_layers(model)
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        raise ValueError(
            f"the model has {len(layers)} layers with weights: an exact minimum needs a single linear one"
        )
    weight = layers[0].weight.double()
    bias = weight.new_zeros(len(weight)) if layers[0].bias is None else layers[0].bias.double()
    few = images[:100]
    said, linear = model(few).double(), few.flatten(1).double() @ weight.mT + bias
    if said.shape != linear.shape or not torch.allclose(
        said, linear, rtol=1e-4, atol=1e-4 * linear.abs().max().item()
    ):
        raise ValueError(
            "the model is more than its linear layer on the pixels: there is no exact minimum for it"
        )
    parts = []
    for start in range(0, len(images), batch):
        x = images[start : start + batch].flatten(1).double()
        if targets is not None:
            part = _nearest_of_class(x, weight, bias, targets[start : start + batch].long(), bounds, margin)
        else:
            part = _nearest_of_any(x, weight, bias, bounds, margin)
        parts.append(part._replace(images=part.images.view(-1, *images.shape[1:])))
    return Exact(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _nearest_of_class(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, bounds, margin: float
) -> Exact:
    others = torch.arange(len(weight), device=x.device).expand(len(x), -1)
    others = others[others != targets[:, None]].view(len(x), -1)
    normals = weight[targets][:, None] - weight[others]
    offsets = margin + bias[others] - bias[targets][:, None]
    solution = project(x, normals, offsets, *bounds, iterations=500)
    size = (solution.point - x).norm(dim=1)
    scale = normals.norm(dim=2).amax(1)
    success = solution.violation <= 1e-6 * scale
    pixels = x.shape[1] ** 0.5
    gap = (size - (2 * solution.dual).clamp_min(0).sqrt()).clamp_min(0)
    unknown = torch.full_like(size, torch.nan)
    return Exact(
        torch.where(success[:, None], solution.point, x),
        success,
        torch.where(success, size / pixels, unknown),
        torch.where(success, gap / pixels, unknown),
        targets,
    )


def _nearest_of_any(x: Tensor, weight: Tensor, bias: Tensor, bounds, margin: float) -> Exact:
    now = (x @ weight.mT + bias).argmax(1)
    best = None
    for target in range(len(weight)):
        part = _nearest_of_class(x, weight, bias, torch.full_like(now, target), bounds, margin)
        part = part._replace(
            distortion=torch.where(now == target, torch.inf, part.distortion.nan_to_num(torch.inf))
        )
        if best is None:
            best = part
        nearer = part.distortion < best.distortion
        best = Exact(
            *(
                torch.where(nearer.view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(part, best, strict=True)
            )
        )
    success = best.distortion.isfinite()
    return best._replace(
        images=torch.where(success[:, None], best.images, x),
        success=success,
        distortion=torch.where(success, best.distortion, torch.nan),
        gap=torch.where(success, best.gap, torch.nan),
    )
