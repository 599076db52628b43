"""Projection of a batch of points onto a few linear inequalities within a box, exactly and through the dual.

The problem is to minimise ½‖u - x‖² subject to G u ≥ b and lower ≤ u ≤ upper.
There are (r, n) points x and (r, p) inequalities, with p small.
For multipliers λ ≥ 0 the inner minimiser is u(λ) = clip(x + Gᵀλ).
The dual is therefore a concave, piecewise quadratic function of p variables.
It is once differentiable, with the gradient b - G u(λ).
Newton's method on its pieces, projected onto λ ≥ 0, ends on the piece that contains the maximum.

A Newton step can lead too far. It can also lead nowhere, if all variables are at their bounds.
The curvature is then increased in two ways, as in the method of Levenberg and Marquardt:
- The variables at their bounds are counted too, with a weight that grows up to that of the other variables.
- A multiple of Σ_j |G Gᵀ|_ij is added, which is an upper bound on the curvature in λ_i of every piece.
In the end this bound alone is the curvature, and the step is certain to ascend.
Every pass of the loop evaluates each unfinished row once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.solvers.row_operations import inside, where

# This fraction of the dual's mean curvature is added, for pieces on which the inequalities are dependent.
_RIDGE = 1e-6
_LEAST_CAUTION, _MOST_CAUTION = 1e-3, 10
# The unfinished rows are copied together when their share of the batch is smaller than this.
_DROP_BELOW = 0.7


class Projection(NamedTuple):
    """The result of a projection.

    Where no point is feasible, the violation stays above rounding errors.
    The dual then exceeds its value for the corner of the box that is the farthest from x.

    Attributes:
        point: The projected points u(λ), (r, n).
        multipliers: The multipliers λ, (r, p).
        dual: The values of the dual, (r,). Each is a lower bound on ½‖u - x‖² over all feasible u.
        violation: The largest component of b - G u for each row, (r,).
    """

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
    """Project points onto {u : normals u ≥ offsets} within a box.

    A row is finished when the dual's gradient is small in every inequality.
    Small means `tolerance` times the largest violation at x, plus the rounding error of the inequality.

    Args:
        x: The points, (r, n).
        normals: The normals G of the inequalities, (r, p, n).
        offsets: The offsets b of the inequalities, (r, p).
        lower: The lower bound of every variable.
        upper: The upper bound of every variable.
        start: The multipliers to begin with, (r, p). By default they are 0.
        tolerance: The size of the dual's gradient at the end, relative to the largest violation at x.
        iterations: The largest number of Newton steps of a row.
    Returns:
        The projected points with their multipliers, dual values and violations.
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
        # Where the system is singular, the step is not finite and is therefore not taken.
        step = torch.linalg.solve_ex(system, ascent * moving).result

        last = caution > _MOST_CAUTION
        if last.any():
            step[last] = ascent[last] / steepest[last]
        trial = (multipliers + step).clamp_min(0)
        trial_point, trial_value, trial_ascent = _inner(x, normals, offsets, trial, lower, upper)
        # Near the maximum the values of two points can be equal in this precision while the gradients differ.
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
        stuck = last & ~better  # Only rounding errors can prevent an ascent here.
        caution = torch.where(
            better, torch.where(caution > _LEAST_CAUTION, caution / 10, 0), 10 * caution + _LEAST_CAUTION
        )
    return result


def _residual(multipliers: Tensor, ascent: Tensor) -> Tensor:
    """The largest component of the dual's gradient along which the multipliers can move, (r,)."""
    return torch.where((multipliers > 0) | (ascent > 0), ascent.abs(), 0).amax(1)


def _inner(x, normals, offsets, multipliers, lower, upper) -> tuple[Tensor, Tensor, Tensor]:
    """The point u(λ), (r, n), the dual's value there, (r,), and its gradient b - G u, (r, p)."""
    point = torch.baddbmm(x[:, None], multipliers[:, None], normals)[:, 0].clamp_(lower, upper)
    ascent = offsets - (normals @ point[:, :, None])[:, :, 0]
    r = point - x
    return point, 0.5 * torch.linalg.vecdot(r, r) + torch.linalg.vecdot(multipliers, ascent), ascent
