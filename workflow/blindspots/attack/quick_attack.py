"""A quick attack by a few gradients, for adversarial training.

Training needs many adversarial examples, but not the nearest ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from blindspots.attack.sqp import SHARE, onto_half_space
from blindspots.networks.fully_connected import Layer, backward, forward
from blindspots.solvers.row_operations import where

_STEPS = 4
# The smallest lead of an example, in logits.
_MARGIN = 4e-3
# A step aims at a larger lead, so that it falls short less often.
_AIM = 10 * _MARGIN


@torch.no_grad()
def near_examples(
    layers: Sequence[Layer], x: Tensor, targets: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Find points of the target classes near x.

    The method is that of `sqp.explore` without noise and momentum. A step goes a share of the way back to x.
    It then goes to where the linearised lead of the target over its nearest competitor is just positive. The
    example is the nearest point of the target class on this path.

    Args:
        layers: The layers of the network, which takes such points and returns the logits of the classes.
        x: The original points, (b, n).
        targets: The target classes, (b,), integers. No target is the class of its x.
        bounds: The smallest and the largest value of a variable.
    Returns:
        The examples, (b, n), within the bounds, and whether one was found, (b,), bool. Where none was found,
        the point is x.
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
    """Find the targets' leads over their nearest competitors.

    Args:
        logits: The logits, (k, b).
        targets: The target classes, (b,), integers.
    Returns:
        The leads, (b,), and their gradients with respect to the logits, (k, b).
    """
    target = targets[None]
    largest, competitor = logits.scatter(0, target, -torch.inf).max(0, keepdim=True)
    slope = torch.zeros_like(logits).scatter_(0, target, 1.0).scatter_(0, competitor, -1.0)
    return (logits.gather(0, target) - largest)[0], slope
