"""The minimisation problem of D(x, l) for a batch of images (Section 4.1).

The problem is to minimise ‖r‖ subject to f(x + r) = l and x + r in the box. The constraint f(x + r) = l holds
where the target's logit is larger than all others. Here an image is a point, a row of n pixels in an array
(b, n). The box of the points is from 0 to 1, whatever the box of the images is. Therefore no tolerance
depends on the scale of the pixels.
"""

from copy import copy
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_ROUNDINGS = 16
# Classes whose logits are this far below the largest one do not count for the rounding.
_OUT_OF_THE_QUESTION = 1e3
_LARGEST_SLACK = 4e-3  # In logits.


class Linearised(NamedTuple):
    """The target's leads over its p nearest competitors, linearised at r points.

    Attributes:
        leads: The leads, (r, p), in logits.
        classes: The classes of the competitors, (r, p), integers.
        gradients: The gradients of the leads with respect to the points, (r, p, n).
    """

    leads: Tensor
    classes: Tensor
    gradients: Tensor

    def offsets(self, points: Tensor) -> Tensor:
        """The offsets b of the inequalities gradients @ u ≥ b.

        A point u satisfies them where the linearised leads are at least 0.

        Args:
            points: The points of the linearisation, (r, n).
        Returns:
            The offsets, (r, p).
        """
        return (self.gradients @ points[:, :, None])[:, :, 0] - self.leads


class Loss(NamedTuple):
    """The loss(x + r, l) of Section 4.1 at r points, which is the cross-entropy with the target class.

    Attributes:
        values: The losses, (r,).
        gradients: The gradients of the losses with respect to the points, (r, n).
        leads: The target's leads over its nearest competitor, (r,), in logits.
    """

    values: Tensor
    gradients: Tensor
    leads: Tensor


class Found(NamedTuple):
    """The result of a method for b images.

    Attributes:
        points: The points, (b, n).
        reached: Whether they have the target class, (b,), bool.
        c: The penalty weight, (b,). NaN where the method has none.
        residual: The distance from optimality, (b,), which is 0 at a minimum.
        status: How the search ended, (b,), as keys of `core.STATUS`.
    """

    points: Tensor
    reached: Tensor
    c: Tensor
    residual: Tensor
    status: Tensor


class Problem:
    """The problem D(x, l) for b images (Section 4.1).

    It counts the gradients that each image needs.

    Args:
        model: A module that returns logits (b, k).
        images: The original images, (b, ...).
        targets: The target classes, (b,), integers.
        bounds: The box of the images. If a bound is infinite, the points are the pixels without scaling.
        margin: The lead in logits that the target needs. Because of it, rounding does not undo a success on
            another device or with another batch size. For each image, an estimate of the rounding of its
            logits is added.
    Attributes:
        model: The module.
        targets: The target classes, (b,), integers.
        bounds: The box of the images.
        shape: The shape of one image.
        origin: The pixel value that becomes 0 in the points.
        width: The number of pixel units that become 1 in the points.
        lower: The lower bound of the points.
        upper: The upper bound of the points.
        x: The original images as points, (b, n).
        rows: The row numbers of the images, (b,).
        gradient_evaluations: The number of gradients that each image has needed, (b,).
        margin: The lead that each image's target needs, (b,), in logits.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, targets: Tensor, bounds: tuple[float, float], margin: float
    ):
        self.model, self.targets = model, targets
        self.bounds, self.shape = bounds, images.shape[1:]
        lower, upper = bounds
        bounded = isfinite(upper - lower)
        self.origin, self.width = (lower, upper - lower) if bounded else (0.0, 1.0)
        self.lower, self.upper = (0.0, 1.0) if bounded else bounds
        self.x = self.points(images.detach())
        self.rows = torch.arange(len(images), device=images.device)
        self.gradient_evaluations = torch.zeros_like(self.rows)
        said = self.logits(self.x).detach()
        matter = said >= said.amax(1, keepdim=True) - _OUT_OF_THE_QUESTION
        matter.scatter_(1, targets[:, None], True)
        rounding = _ROUNDINGS * torch.finfo(images.dtype).eps * (said.abs() * matter).amax(1)
        self.margin = margin + rounding
        self._slack = min(margin, _LARGEST_SLACK) + rounding

    def subset(self, rows: Tensor) -> "Problem":
        """The problem of some of the images.

        Args:
            rows: The row numbers of the images, (r,).
        Returns:
            The problem of r images, with its own counts of gradient evaluations.
        """
        part = copy(self)
        part.x, part.targets = self.x[rows], self.targets[rows]
        part.margin, part._slack = self.margin[rows], self._slack[rows]
        part.rows = torch.arange(len(rows), device=rows.device)
        part.gradient_evaluations = torch.zeros_like(part.rows)
        return part

    def points(self, images: Tensor) -> Tensor:
        """Convert images (r, ...) to points (r, n)."""
        flat = images.flatten(1)
        return (
            flat if self.width == 1 and self.origin == 0 else ((flat - self.origin) / self.width).clamp(0, 1)
        )

    def images(self, points: Tensor) -> Tensor:
        """Convert points (r, n) to images (r, ...), which may lie slightly outside their box by rounding."""
        if self.width != 1 or self.origin != 0:
            points = points * self.width + self.origin
        return points.view(-1, *self.shape)

    def beyond(self, times: int) -> Tensor:
        """The lead that a step aims at, because its linearisation may be wrong.

        Args:
            times: The factor on the margin. Of a margin above 4e-3 logits, only 4e-3 logits are multiplied.
        Returns:
            The leads, (b,), in logits.
        """
        return self.margin - self._slack + times * self._slack

    def logits(self, points: Tensor) -> Tensor:
        """The network's logits (r, k) at points (r, n)."""
        return self.model(self.images(points))

    def leads(self, points: Tensor, rows: Tensor) -> Tensor:
        """The target's lead over each class.

        Args:
            points: The points, (r, n).
            rows: The row numbers of their images, (r,).
        Returns:
            The leads, (r, k), in logits. The lead over the target itself is infinite.
        """
        return _leads(self.logits(points), self.targets[rows])

    def holds(self, points: Tensor, rows: Tensor) -> Tensor:
        """Whether points have their target's class.

        Args:
            points: The points, (r, n).
            rows: The row numbers of their images, (r,).
        Returns:
            Whether the target leads by at least the margin, (r,), bool.
        """
        return self.leads(points, rows).amin(1) >= self.margin[rows]

    def linearised(self, points: Tensor, rows: Tensor, competitors: int) -> Linearised:
        """Linearise the smallest leads, each of which costs a gradient.

        Args:
            points: The points, (r, n).
            rows: The row numbers of their images, (r,).
            competitors: The number of leads, at most k - 1.
        Returns:
            The leads with their gradients, in ascending order.
        """
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            leads = self.leads(points, rows)
            smallest, classes = leads.topk(min(competitors, leads.shape[1] - 1), dim=1, largest=False)
            columns = smallest.unbind(1)
            more = [True] * (len(columns) - 1) + [False]
            gradients = [_gradient(c, points, retain_graph=m) for c, m in zip(columns, more, strict=True)]
        self.gradient_evaluations[rows] += len(columns)
        return Linearised(smallest.detach(), classes, torch.stack(gradients, dim=1))

    def smallest_lead(self, points: Tensor, rows: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """The smallest lead and its gradient.

        With smoothing t, it is replaced by a smooth function below it, -t log Σ exp(-lead / t). The sum is
        over all competitors.

        Args:
            points: The points, (r, n).
            rows: The row numbers of their images, (r,).
            smoothing: The smoothing t, in logits. 0 means no smoothing.
        Returns:
            The smallest leads, (r,), in logits, and their gradients, (r, n).
        """
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            leads = self.leads(points, rows)
            smallest = -smoothing * torch.logsumexp(-leads / smoothing, dim=1) if smoothing else leads.amin(1)
            gradients = _gradient(smallest, points)
        self.gradient_evaluations[rows] += 1
        return smallest.detach(), gradients

    def loss(self, points: Tensor, rows: Tensor) -> Loss:
        """The loss and its gradient.

        Args:
            points: The points, (r, n).
            rows: The row numbers of their images, (r,).
        Returns:
            The loss at the points.
        """
        targets = self.targets[rows]
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            logits = self.logits(points)
            losses = cross_entropy(logits, targets, reduction="none")
            gradients = _gradient(losses, points)
        self.gradient_evaluations[rows] += 1
        return Loss(losses.detach(), gradients, _leads(logits.detach(), targets).amin(1))

    def distance(self, points: Tensor, rows: Tensor) -> Tensor:
        """The distance ‖r‖₂ of points x + r from their x.

        Args:
            points: The points, (r, n).
            rows: The row numbers of their images, (r,).
        Returns:
            The distances, (r,).
        """
        return (points - self.x[rows]).norm(dim=1)


def _gradient(values: Tensor, points: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of each value (r,) with respect to its point, (r, n), in its own memory.

    Where a gradient is the same number for all pixels, autograd may return an expanded view of that number.
    """
    (gradients,) = torch.autograd.grad(values.sum(), points, retain_graph=retain_graph)
    return gradients.contiguous()


def _leads(logits: Tensor, targets: Tensor) -> Tensor:
    targets = targets[:, None]
    return (logits.gather(1, targets) - logits).scatter(1, targets, torch.inf)
