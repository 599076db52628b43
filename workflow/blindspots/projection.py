"""The nearest point of a box that satisfies a few linear inequalities: an exact solution for a batch, through the dual.

minimise ½‖u - x‖² subject to G u ≥ b and lower ≤ u ≤ upper, for (r, n) points x and (r, p) inequalities with p small.
For multipliers λ ≥ 0 the inner minimiser is u(λ) = clip(x + Gᵀλ), so the dual is a concave, once differentiable, piecewise
quadratic function of p variables with gradient b - G u(λ). Newton's method on its pieces, projected onto λ ≥ 0, ends on
the piece that holds the maximum.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_RIDGE = 1e-6  # of the dual's mean curvature, for pieces on which the inequalities are dependent
_HALVINGS = 20


class Projection(NamedTuple):
    """point (r, n) = u(λ); multipliers (r, p) = λ; dual (r,), a lower bound on ½‖u - x‖² over all feasible u; violation
    (r,), the largest b - G u, which stays above rounding where no point is feasible."""

    point: Tensor
    multipliers: Tensor
    dual: Tensor
    violation: Tensor


def project(x: Tensor, normals: Tensor, offsets: Tensor, lower: float, upper: float, iterations: int = 30) -> Projection:
    """Project (r, n) points onto {u : normals u ≥ offsets} within the box; normals (r, p, n), offsets (r, p)."""
    multipliers = torch.zeros_like(offsets)
    point, value, ascent = _inner(x, normals, offsets, multipliers, lower, upper)
    identity = torch.eye(offsets.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        moving = (multipliers > 0) | (ascent > 0)
        inside = (point > lower) & (point < upper)
        curvature = (normals * inside[:, None]) @ normals.mT
        ridge = _RIDGE * curvature.diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(x.dtype).tiny
        both = moving[:, :, None] & moving[:, None, :]
        system = torch.where(both, curvature + ridge[:, None, None] * identity, identity)
        step = torch.linalg.solve(system, ascent * moving)

        rounding = 8 * torch.finfo(x.dtype).eps * value.abs()
        residual = _residual(multipliers, ascent)
        length = torch.ones_like(value)
        accepted = torch.zeros_like(value, dtype=torch.bool)
        state = (multipliers, point, value, ascent)
        for _ in range(_HALVINGS):
            trial = (multipliers + length[:, None] * step).clamp_min(0)
            trial_point, trial_value, trial_ascent = _inner(x, normals, offsets, trial, lower, upper)
            # Near the maximum the value no longer tells points apart in this precision, but its gradient does.
            higher = trial_value > value + rounding
            flatter = (trial_value >= value - rounding) & (_residual(trial, trial_ascent) < residual / 2)
            better = ~accepted & (higher | flatter)
            news = (trial, trial_point, trial_value, trial_ascent)
            state = tuple(torch.where(_like(better, new), new, old) for new, old in zip(news, state, strict=True))
            accepted |= better
            if accepted.all():
                break
            length = length / 2
        multipliers, point, value, ascent = state
        if not accepted.any():
            break
    return Projection(point, multipliers, value, ascent.amax(1))


def _residual(multipliers: Tensor, ascent: Tensor) -> Tensor:
    """The largest component of the dual's gradient that is free to be followed."""
    return torch.where((multipliers > 0) | (ascent > 0), ascent.abs(), 0).amax(1)


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (values.ndim - 1))


def _inner(x, normals, offsets, multipliers, lower, upper) -> tuple[Tensor, Tensor, Tensor]:
    """u(λ), the dual's value there, and its gradient b - G u."""
    point = (x + (multipliers[:, None, :] @ normals)[:, 0]).clamp(lower, upper)
    ascent = offsets - (normals @ point[:, :, None])[:, :, 0]
    return point, 0.5 * (point - x).square().sum(1) + torch.linalg.vecdot(multipliers, ascent), ascent
