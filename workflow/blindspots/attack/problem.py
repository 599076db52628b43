"""The problem D(x, l) (Section 4.1): minimise ‖r‖ subject to f(x + r) = l and x + r in the box, for a batch of images.

f(x + r) = l where the target's logit leads all others. Images are points here, rows of n pixels (b, n), whose box is from 0
to 1 whatever the images' own is, so that no tolerance depends on the scale of the pixels.
"""

from copy import copy
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_ROUNDINGS = 16
_OUT_OF_THE_QUESTION = 1e3  # logits below the largest one
_LARGEST_SLACK = 4e-3  # logits


class Linearised(NamedTuple):
    """The target's leads over its p nearest competitors: their values (r, p), those classes (r, p), gradients (r, p, n)."""

    leads: Tensor
    classes: Tensor
    gradients: Tensor

    def offsets(self, points: Tensor) -> Tensor:
        """b of gradients @ u ≥ b, which says that the linearised leads are at least 0: (r, p)."""
        return (self.gradients @ points[:, :, None])[:, :, 0] - self.leads


class Loss(NamedTuple):
    """loss(x + r, l), the cross-entropy towards the target, at r points: values (r,), gradients (r, n), and the target's
    lead over its nearest competitor there, (r,)."""

    values: Tensor
    gradients: Tensor
    leads: Tensor


class Found(NamedTuple):
    """What a method found for b images: points (b, n); reached (b,) bool, they are of the target's class; c (b,), the
    penalty weight, NaN where the method has none; residual (b,), 0 at a minimum; status (b,)."""

    points: Tensor
    reached: Tensor
    c: Tensor
    residual: Tensor
    status: Tensor


class Problem:
    """D(x, l) for (b, ...) images; counts the gradients that each has cost.

    bounds: the images' box; where one of them is infinite, points are the pixels as they are.
    margin: logits by which the target has to lead, so that rounding, which differs between batch sizes and devices, does
    not undo a success; for each image (b,) what its logits' rounding may come to is added.
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
        """The problems `rows` alone, with a count of their own."""
        part = copy(self)
        part.x, part.targets = self.x[rows], self.targets[rows]
        part.margin, part._slack = self.margin[rows], self._slack[rows]
        part.rows = torch.arange(len(rows), device=rows.device)
        part.gradient_evaluations = torch.zeros_like(part.rows)
        return part

    def points(self, images: Tensor) -> Tensor:
        """(r, ...) images as points (r, n)."""
        flat = images.flatten(1)
        return (
            flat if self.width == 1 and self.origin == 0 else ((flat - self.origin) / self.width).clamp(0, 1)
        )

    def images(self, points: Tensor) -> Tensor:
        """(r, n) points as images (r, ...), which by rounding may lie a little outside of their box."""
        if self.width != 1 or self.origin != 0:
            points = points * self.width + self.origin
        return points.view(-1, *self.shape)

    def beyond(self, times: int) -> Tensor:
        """The lead that a step aims at, as its linearisation may be wrong: for a small margin that many times it, (b,)."""
        return self.margin - self._slack + times * self._slack

    def logits(self, points: Tensor) -> Tensor:
        """f at (r, n) points: (r, k)."""
        return self.model(self.images(points))

    def leads(self, points: Tensor, rows: Tensor) -> Tensor:
        """The target's lead over each class at (r, n) points of the problems `rows`: (r, k), infinite over itself."""
        return _leads(self.logits(points), self.targets[rows])

    def holds(self, points: Tensor, rows: Tensor) -> Tensor:
        """Which points are of their target's class, by the margin: (r,) bool."""
        return self.leads(points, rows).amin(1) >= self.margin[rows]

    def linearised(self, points: Tensor, rows: Tensor, competitors: int) -> Linearised:
        """The smallest leads at (r, n) points, linearised there. Each costs a gradient."""
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
        """The smallest lead at (r, n) points, (r,), and its gradients (r, n); or a smooth function below it, over all
        competitors: -t log Σ exp(-lead / t), where t is the smoothing, in logits."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            leads = self.leads(points, rows)
            smallest = -smoothing * torch.logsumexp(-leads / smoothing, dim=1) if smoothing else leads.amin(1)
            gradients = _gradient(smallest, points)
        self.gradient_evaluations[rows] += 1
        return smallest.detach(), gradients

    def loss(self, points: Tensor, rows: Tensor) -> Loss:
        """The loss at (r, n) points of the problems `rows`."""
        targets = self.targets[rows]
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            logits = self.logits(points)
            losses = cross_entropy(logits, targets, reduction="none")
            gradients = _gradient(losses, points)
        self.gradient_evaluations[rows] += 1
        return Loss(losses.detach(), gradients, _leads(logits.detach(), targets).amin(1))

    def distance(self, points: Tensor, rows: Tensor) -> Tensor:
        """‖r‖₂ of (r, n) points x + r: (r,)."""
        return (points - self.x[rows]).norm(dim=1)


def _gradient(values: Tensor, points: Tensor, retain_graph: bool = False) -> Tensor:
    """Of each of (r,) values with respect to its point, (r, n), in memory of its own: where it is one number for all pixels,
    autograd may give that number alone."""
    (gradients,) = torch.autograd.grad(values.sum(), points, retain_graph=retain_graph)
    return gradients.contiguous()


def _leads(logits: Tensor, targets: Tensor) -> Tensor:
    targets = targets[:, None]
    return (logits.gather(1, targets) - logits).scatter(1, targets, torch.inf)
