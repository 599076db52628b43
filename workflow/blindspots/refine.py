"""From an adversarial example on to a local minimum of the distortion itself, under the constraint that defines it.

The penalised problem of the paper's procedure ends a little away from min ‖r‖ subject to f(x + r) = l: what c weighs is
the cross-entropy, not the constraint. Sequential quadratic steps take up the constraint: linearise the margins of the
target over its nearest competitors at the best image so far, project x onto what that allows within the box (exactly),
correct for the curvature, and go as far towards the projection as the network still answers l. Where the curvature is
too large for that to lead nearer, the step is damped: not x is projected, but a point on the way to it. The distortion
never rises. (Nocedal and Wright, *Numerical Optimization*, 2006, Chapter 18.)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blindspots.projection import project

_BISECTIONS = 8
_LEAST_DAMPING = 1e-3
_CORRECTIONS = 2  # second-order: constraints moved by what the curvature took from the leads, with the same gradients


class Refined(NamedTuple):
    """images (b, ...); distortion (b,) root mean square; residual (b,), the last quadratic step as a fraction of the
    distortion, 0 at a point that satisfies the optimality (KKT) conditions; gradient_evaluations (b,)."""

    images: Tensor
    distortion: Tensor
    residual: Tensor
    gradient_evaluations: Tensor


def refine(
    model: nn.Module,
    originals: Tensor,
    adversarial: Tensor,
    targets: Tensor,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    margin: float = 1e-4,
    tolerance: float = 1e-3,
    max_rounds: int = 10,
    competitors: int = 4,
    batch: int = 250,
    report: Callable[..., None] = lambda message, *values: None,
) -> Refined:
    """Bring (b, ...) adversarial images, which `model` calls `targets`, nearer to their originals.

    margin:      logits by which the target keeps its lead.
    tolerance:   an image is done when the quadratic step is at most this fraction of its distortion, or leads no nearer.
    competitors: how many of the other classes are linearised, the nearest ones; each costs a gradient a round.

    Raises ValueError if an image is not of its target's class, or outside the bounds.
    """
    lower, upper = bounds
    if not ((adversarial >= lower) & (adversarial <= upper)).all():
        raise ValueError(f"an adversarial image has a value outside [{lower}, {upper}]")
    parts = []
    for start in range(0, len(originals), batch):
        chosen = slice(start, start + batch)
        part = _Batch(model, originals[chosen], adversarial[chosen], targets[chosen].long(), bounds, margin)
        parts.append(part.refined(tolerance, max_rounds, competitors))
        distortions = torch.cat([part.distortion for part in parts])
        report("%d of %d images, mean distortion %.4f", len(distortions), len(originals), distortions.mean().item())
    return Refined(*(torch.cat(values) for values in zip(*parts, strict=True)))


class _Batch:
    def __init__(self, model, originals, adversarial, targets, bounds, margin):
        self.model, self.targets, self.bounds, self.margin = model, targets, bounds, margin
        self.shape = originals.shape[1:]
        self.x, self.best = originals.flatten(1), adversarial.flatten(1).clone()
        rows = torch.arange(len(targets), device=targets.device)
        behind = self.leads(self.best, rows).amin(1) < 0
        if behind.any():
            raise ValueError(f"{int(behind.sum())} images are not of their target's class: refine successes only")

    def leads(self, points: Tensor, rows: Tensor) -> Tensor:
        """The target's lead over each class, (r, k), infinite over itself."""
        logits = self.model(points.view(-1, *self.shape))
        target = self.targets[rows][:, None]
        return (logits.gather(1, target) - logits).scatter(1, target, torch.inf)

    def linearised(self, rows: Tensor, competitors: int) -> tuple[Tensor, Tensor, Tensor]:
        """The smallest leads at the best points and the classes they are over, (r, p), and their gradients, (r, p, n)."""
        points = self.best[rows].requires_grad_()
        with torch.enable_grad():
            leads = self.leads(points, rows)
            smallest, classes = leads.topk(min(competitors, leads.shape[1] - 1), dim=1, largest=False)
            gradients = [torch.autograd.grad(column.sum(), points, retain_graph=True)[0] for column in smallest.unbind(1)]
        return smallest.detach(), classes, torch.stack(gradients, dim=1)

    @torch.no_grad()
    def refined(self, tolerance: float, max_rounds: int, competitors: int) -> Refined:
        rows = torch.arange(len(self.x), device=self.x.device)
        distance = (self.best - self.x).norm(dim=1)
        residual = torch.zeros_like(distance)
        evaluations = torch.zeros_like(rows)
        damping = torch.ones_like(distance)
        rows = rows[distance > 0]
        for _ in range(max_rounds):
            if not len(rows):
                break
            leads, classes, gradients = self.linearised(rows, competitors)
            evaluations[rows] += leads.shape[1]
            # Twice the margin, of which the linearisation may be wrong by half.
            offsets = (gradients @ self.best[rows][:, :, None])[:, :, 0] - leads + 2 * self.margin
            goal = self.best[rows] + damping[rows][:, None] * (self.x[rows] - self.best[rows])
            point = project(goal, gradients, offsets, *self.bounds).point
            residual[rows] = (point - self.best[rows]).norm(dim=1) / (damping[rows] * distance[rows])
            for _ in range(_CORRECTIONS):
                missing = 2 * self.margin - self.leads(point, rows).gather(1, classes)
                offsets = offsets + missing.clamp_min(0)
                point = project(goal, gradients, offsets, *self.bounds).point
            step = point - self.best[rows]

            reached = self.best[rows] + self._allowed(rows, step)[:, None] * step
            size = (reached - self.x[rows]).norm(dim=1)
            nearer = size < distance[rows]
            worthwhile = size < distance[rows] * (1 - 0.1 * tolerance**2 * damping[rows])
            self.best[rows[nearer]], distance[rows[nearer]] = reached[nearer], size[nearer]
            damping[rows] = torch.where(worthwhile, (2 * damping[rows]).clamp_max(1), damping[rows] / 4)
            rows = rows[(residual[rows] > tolerance) & (damping[rows] >= _LEAST_DAMPING)]
        images = self.best.view(-1, *self.shape)
        return Refined(images, distance / self.x.shape[1] ** 0.5, residual, evaluations)

    def _allowed(self, rows: Tensor, step: Tensor) -> Tensor:
        """The largest fraction of each step, found by bisection, after which the target still leads by the margin."""

        def leading(fraction: Tensor) -> Tensor:
            return self.leads(self.best[rows] + fraction[:, None] * step, rows).amin(1) >= self.margin

        low, high = torch.zeros_like(step[:, 0]), torch.ones_like(step[:, 0])
        whole = leading(high)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            holds = leading(middle)
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return torch.where(whole, 1.0, low)
