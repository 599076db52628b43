"""The nearest point of a box that satisfies a few linear inequalities: an exact solution for a batch, through the dual.

minimise ½‖u - x‖² subject to G u ≥ b and lower ≤ u ≤ upper, for (r, n) points x and (r, p) inequalities with p small.
For multipliers λ ≥ 0 the inner minimiser is u(λ) = clip(x + Gᵀλ), so the dual is a concave, once differentiable, piecewise
quadratic function of p variables with gradient b - G u(λ). Newton's method on its pieces, projected onto λ ≥ 0, ends on
the piece that holds the maximum. Where a Newton step leads too far, or nowhere as all variables are at their bounds, it
becomes more careful: the variables at their bounds count too, by and by as much as the others, and a multiple of
Σ_j |G Gᵀ|_ij is added (Levenberg and Marquardt), which as the curvature in λ_i bounds that of every piece; and last that
bound alone is the curvature, so that it cannot fail to ascend. Every pass of the loop evaluates each unfinished row once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.solvers.row_operations import inside, where

_RIDGE = 1e-6  # of the dual's mean curvature, for pieces on which the inequalities are dependent
_LEAST_CAUTION, _MOST_CAUTION = 1e-3, 10
_DROP_BELOW = 0.7  # copy the unfinished rows together when fewer than this share of the batch is unfinished


class Projection(NamedTuple):
    """point (r, n) = u(λ); multipliers (r, p) = λ; dual (r,), a lower bound on ½‖u - x‖² over all feasible u; violation
    (r,), the largest b - G u, which stays above rounding where no point is feasible: the dual is then found to be beyond
    the corner of the box that is the farthest from x."""

    point: Tensor
    multipliers: Tensor
    dual: Tensor
    violation: Tensor


def project(
    x: Tensor,
    normals: Tensor,
    offsets: Tensor,
    lower: float,
    upper: float,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-9,
    iterations: int = 50,
) -> Projection:
    """Project (r, n) points onto {u : normals u ≥ offsets} within the box; normals (r, p, n), offsets (r, p).

    start:     multipliers (r, p) to begin with, 0 otherwise.
    tolerance: a row is done when the dual's gradient has shrunk to this fraction of the largest violation at x, or to what
               rounding leaves of each inequality.
    """
    rows = torch.arange(len(x), device=x.device)
    result = Projection(
        x.clone(), torch.zeros_like(offsets), torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    )
    identity = torch.eye(offsets.shape[1], dtype=x.dtype, device=x.device)
    multipliers = torch.zeros_like(offsets) if start is None else start
    point, value, ascent = _inner(x, normals, offsets, multipliers, lower, upper)
    at_zero = offsets - (normals @ x[:, :, None])[:, :, 0]
    rounding = 8 * torch.finfo(x.dtype).eps * torch.maximum(offsets.abs(), (offsets - at_zero).abs())
    small = tolerance * at_zero.clamp_min(0).amax(1, keepdim=True) + rounding
    steepest = (normals @ normals.mT).abs().sum(2)
    farthest = 0.5 * torch.maximum(x - lower, upper - x).square().sum(1) * (1 + 1e-6)
    caution = torch.zeros_like(value)
    stuck, finished = (torch.zeros_like(value, dtype=torch.bool) for _ in range(2))

    for iteration in range(iterations + 1):
        moving = (multipliers > 0) | (ascent > 0)
        flat = (~moving | (ascent.abs() <= small)).all(1)
        stop = ~finished & (flat | (value > farthest) | stuck | (iteration == iterations))
        if stop.any():
            for part, values in zip(result, (point, multipliers, value, ascent.amax(1)), strict=True):
                part[rows[stop]] = values[stop]
            finished |= stop
            if finished.all():
                break
            if (~finished).sum() < _DROP_BELOW * len(rows):
                given = (rows, x, normals, offsets, small, steepest, farthest)
                rows, x, normals, offsets, small, steepest, farthest = (part[~finished] for part in given)
                reached = (multipliers, point, value, ascent, caution, moving)
                multipliers, point, value, ascent, caution, moving = (part[~finished] for part in reached)
                finished = finished[~finished]

        counted = torch.maximum(inside(point, lower, upper), caution.clamp_max(1)[:, None])
        curvature = (normals * counted[:, None]) @ normals.mT
        ridge = _RIDGE * curvature.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + torch.finfo(x.dtype).tiny
        damping = ridge + caution[:, None] * steepest
        both = moving[:, :, None] & moving[:, None, :]
        system = torch.where(both, curvature + damping[:, :, None] * identity, identity)
        step = torch.linalg.solve_ex(
            system, ascent * moving
        ).result  # not finite, and so not taken, where it is singular

        last = caution > _MOST_CAUTION
        if last.any():
            step[last] = ascent[last] / steepest[last]
        trial = (multipliers + step).clamp_min(0)
        trial_point, trial_value, trial_ascent = _inner(x, normals, offsets, trial, lower, upper)
        # Near the maximum the value no longer tells points apart in this precision, but its gradient does.
        noise = 8 * torch.finfo(x.dtype).eps * value.abs()
        flatter = (trial_value >= value - noise) & (
            _residual(trial, trial_ascent) < _residual(multipliers, ascent) / 2
        )
        better = (trial_value > value + noise) | flatter
        multipliers, point, ascent = (
            where(better, new, old)
            for new, old in ((trial, multipliers), (trial_point, point), (trial_ascent, ascent))
        )
        value = torch.where(better, trial_value, value)
        stuck = last & ~better  # by rounding
        caution = torch.where(
            better, torch.where(caution > _LEAST_CAUTION, caution / 10, 0), 10 * caution + _LEAST_CAUTION
        )
    return result


def _residual(multipliers: Tensor, ascent: Tensor) -> Tensor:
    """The largest component of the dual's gradient that is free to be followed."""
    return torch.where((multipliers > 0) | (ascent > 0), ascent.abs(), 0).amax(1)


def _inner(x, normals, offsets, multipliers, lower, upper) -> tuple[Tensor, Tensor, Tensor]:
    """u(λ), the dual's value there, and its gradient b - G u."""
    point = torch.baddbmm(x[:, None], multipliers[:, None], normals)[:, 0].clamp_(lower, upper)
    ascent = offsets - (normals @ point[:, :, None])[:, :, 0]
    r = point - x
    return point, 0.5 * torch.linalg.vecdot(r, r) + torch.linalg.vecdot(multipliers, ascent), ascent
