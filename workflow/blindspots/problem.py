"""The problem D(x, l) (Section 4.1): minimise ‖r‖ subject to f(x + r) = l and x + r in the box, for a batch of images.

f(x + r) = l where the target's logit leads all others. Images are rows of n pixels here, (b, n).
"""

from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_ROUNDINGS = 16


class Linearised(NamedTuple):
    """The target's leads over its p nearest competitors: their values (r, p), those classes (r, p), gradients (r, p, n)."""

    leads: Tensor
    classes: Tensor
    gradients: Tensor

    def offsets(self, points: Tensor) -> Tensor:
        """b of gradients @ u ≥ b, which says that the linearised leads are at least 0: (r, p)."""
        return (self.gradients @ points[:, :, None])[:, :, 0] - self.leads


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

    margin: logits by which the target has to lead, so that rounding, which differs between batch sizes and devices, does
    not undo a success; for each image (b,) what its logits' rounding may come to is added.
    """

    def __init__(self, model: nn.Module, images: Tensor, targets: Tensor, bounds: tuple[float, float], margin: float):
        self.model, self.targets = model, targets
        self.lower, self.upper = bounds
        self.shape = images.shape[1:]
        self.x = images.detach().flatten(1)
        self.rows = torch.arange(len(images), device=images.device)
        self.gradient_evaluations = torch.zeros_like(self.rows)
        self.margin = margin + _ROUNDINGS * torch.finfo(images.dtype).eps * self.logits(self.x).detach().abs().amax(1)

    def subset(self, rows: Tensor) -> "Problem":
        """The problems `rows` alone, with a count of their own."""
        part = copy(self)
        part.x, part.targets, part.margin = self.x[rows], self.targets[rows], self.margin[rows]
        part.rows = torch.arange(len(rows), device=rows.device)
        part.gradient_evaluations = torch.zeros_like(part.rows)
        return part

    def logits(self, points: Tensor) -> Tensor:
        """f at (r, n) points: (r, k)."""
        return self.model(points.view(-1, *self.shape))

    def leads(self, points: Tensor, rows: Tensor) -> Tensor:
        """The target's lead over each class at (r, n) points of the problems `rows`: (r, k), infinite over itself."""
        logits = self.logits(points)
        target = self.targets[rows][:, None]
        return (logits.gather(1, target) - logits).scatter(1, target, torch.inf)

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
            gradients = [torch.autograd.grad(c.sum(), points, retain_graph=m)[0] for c, m in zip(columns, more, strict=True)]
        self.gradient_evaluations[rows] += len(columns)
        return Linearised(smallest.detach(), classes, torch.stack(gradients, dim=1))

    def smallest_lead(self, points: Tensor, rows: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """The smallest lead at (r, n) points, (r,), and its gradients (r, n); or a smooth function below it, over all
        competitors: -t log Σ exp(-lead / t), where t is the smoothing, in logits."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            leads = self.leads(points, rows)
            smallest = -smoothing * torch.logsumexp(-leads / smoothing, dim=1) if smoothing else leads.amin(1)
            (gradients,) = torch.autograd.grad(smallest.sum(), points)
        self.gradient_evaluations[rows] += 1
        return smallest.detach(), gradients

    def loss(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """loss(x + r, l), the cross-entropy towards the target at (r, n) points, (r,), and its gradients (r, n)."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            losses = cross_entropy(self.logits(points), self.targets[rows], reduction="none")
            (gradient,) = torch.autograd.grad(losses.sum(), points)
        self.gradient_evaluations[rows] += 1
        return losses.detach(), gradient

    def distance(self, points: Tensor, rows: Tensor) -> Tensor:
        """‖r‖₂ of (r, n) points x + r: (r,)."""
        return (points - self.x[rows]).norm(dim=1)
