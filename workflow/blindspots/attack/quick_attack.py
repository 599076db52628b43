"""Near examples of another class by a few gradients: for training, which needs many and not the very nearest ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from blindspots.attack.sqp import SHARE, onto_half_space
from blindspots.networks.fully_connected import Layer, backward, forward
from blindspots.solvers.row_operations import where

_STEPS = 4
_MARGIN = 4e-3  # logits that an example leads by, at least;
_AIM = 10 * _MARGIN  # a step aims farther, to fall short less often


@torch.no_grad()
def near_examples(
    layers: Sequence[Layer], x: Tensor, targets: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Points (b, n) of the targets' classes (b,) near x, (b, n), within their bounds; and where any was found, (b,).

    layers: of the classes' logits of such points, none of whose targets are the classes of x. What is not found is x.

    It is `sqp.explore` without noise or momentum: a step goes a share of the way back to x, and then to where the target's
    lead over its nearest competitor, linearised, is just positive. The nearest point on this path is the example.
    """
    points, nearest, distance = x, x, torch.full_like(x[:, 0], torch.inf)
    passes, logits = forward(layers, {0: x.t()})
    lead, slope = _smallest_lead(logits, targets)
    first, last = SHARE
    for step in range(_STEPS):
        normal = backward(passes, slope, to_first=True)[1][0].t()
        offset = torch.linalg.vecdot(normal, points) - lead + _AIM
        goal = torch.lerp(points, x, first * (last / first) ** (step / _STEPS))
        points = onto_half_space(goal, normal, offset, *bounds)
        passes, logits = forward(layers, {0: points.t()})
        lead, slope = _smallest_lead(logits, targets)
        away = (points - x).norm(dim=1)
        nearer = (lead >= _MARGIN) & (away < distance)
        nearest, distance = where(nearer, points, nearest), torch.where(nearer, away, distance)
    return nearest, distance.isfinite()


def _smallest_lead(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The lead (b,) of the targets' logits over the largest of the others in (k, b), and its slopes by these, (k, b)."""
    target = targets[None]
    largest, competitor = logits.scatter(0, target, -torch.inf).max(0, keepdim=True)
    slope = torch.zeros_like(logits).scatter_(0, target, 1.0).scatter_(0, competitor, -1.0)
    return (logits.gather(0, target) - largest)[0], slope
