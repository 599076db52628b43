"""Box-constrained L-BFGS for a batch of independent problems: each row its own history, step and convergence.

The method is projected quasi-Newton: variables at a bound whose gradient points out of the box stay there (the binding
set), the L-BFGS direction is taken in the others, and trial points are projected onto the box. Every pass of the loop
evaluates each unfinished row once, whether that row is at a new iterate or still searching along its direction.
(Bertsekas, *Projected Newton methods for optimization problems with simple constraints*, 1982; Nocedal and Wright,
*Numerical Optimization*, 2006, Algorithm 7.4.)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.rows import where
from blindspots.sums import AS_THEY_ARE, Sums

CONVERGED, OUT_OF_EVALUATIONS, NO_DESCENT = 0, 1, 2

_SUFFICIENT_DECREASE = 1e-4
_SMALLEST_STEP = 1e-8
_WINDOW = 10  # passes in which a row that goes on has to lower its value by `min_decrease`
_DROP_BELOW = 0.8  # copy the unfinished rows together when fewer than this share of the batch is unfinished


class Evaluation(NamedTuple):
    """An objective at (b, n) points: value (b,) and gradient (b, n), with the size (b,) of either that counts as 1."""

    value: Tensor
    gradient: Tensor
    value_scale: Tensor
    gradient_scale: Tensor


class Minimum(NamedTuple):
    """Where each row ended: x (b, n), residual (b,) relative to the objective's scale, evaluations (b,), status (b,)."""

    x: Tensor
    residual: Tensor
    evaluations: Tensor
    status: Tensor


def minimize_in_box(
    objective: Callable[[Tensor, Tensor], Evaluation],
    start: Tensor,
    inverse_curvature: Tensor,
    *,
    lower: float,
    upper: float,
    history: int,
    tolerance: float,
    min_decrease: float,
    max_evaluations: int,
    sums: Sums = AS_THEY_ARE,
) -> Minimum:
    """Minimise each row of `start` (b, n) over the box [lower, upper]^n.

    objective:         (points (r, n), rows (r,)) -> Evaluation, where rows says which of the b problems the points are of.
    inverse_curvature: (b,) the length of the first step for a gradient of norm 1.
    history:           passes of the loop whose pairs (s, y) are kept; a pass that only shortened a step has none.
    tolerance:         a row has converged when its projected gradient, the gradient but 0 in the binding set, is at most
                       this times its scale. (Not ‖clip(x - g) - x‖, which the box cuts to the distance from a bound.)
    min_decrease:      a row is given up when ten passes lower its value by no more than this times its scale, as happens at
                       kinks, where the gradient never becomes small.
    sums:              rounded, as the trial points then are too, or not; those within the objective are its own affair.
    """
    rows = torch.arange(len(start), device=start.device)
    x = start.clamp(lower, upper)
    result = Minimum(x.clone(), x.new_zeros(len(x)), rows.clone(), rows.clone())

    value, gradient, value_scale, scale = objective(x, rows)
    gamma = inverse_curvature.clone()
    free = (~binding(x, gradient, lower, upper)).to(x.dtype)
    projected = gradient * free
    direction = _no_longer_than(upper - lower, gamma[:, None] * projected).neg_()
    step = torch.ones_like(gamma)
    pairs_s = x.new_empty(history, *x.shape)
    pairs_y = x.new_empty(history, *x.shape)
    rho = x.new_zeros(history, len(x))  # 1 / sᵀy, and 0 for a slot in which a row stored no pair
    reference = value
    finished = torch.zeros_like(step, dtype=torch.bool)

    for evaluations in range(1, max_evaluations + 1):
        residual = sums.norm(projected) / scale
        converged, stuck = residual <= tolerance, step < _SMALLEST_STEP
        if evaluations % _WINDOW == 0:
            stuck |= reference - value <= min_decrease * value_scale
            reference = value
        stop = ~finished & (converged | stuck | (evaluations == max_evaluations))
        if stop.any():
            ended = rows[stop]
            status = torch.where(converged, CONVERGED, torch.where(stuck, NO_DESCENT, OUT_OF_EVALUATIONS))
            result.x[ended], result.residual[ended] = x[stop], residual[stop]
            result.evaluations[ended], result.status[ended] = evaluations, status[stop]
            finished |= stop
            if finished.all():
                break
            if (~finished).sum() < _DROP_BELOW * len(rows):
                going = ~finished
                rows, x, value, gradient, projected, free = (
                    part[going] for part in (rows, x, value, gradient, projected, free)
                )
                value_scale, scale, gamma, direction, step, reference = (
                    part[going] for part in (value_scale, scale, gamma, direction, step, reference)
                )
                pairs_s, pairs_y, rho = pairs_s[:, going], pairs_y[:, going], rho[:, going]
                finished = finished[going]

        trial = sums.rounded(x + step[:, None] * direction).clamp_(lower, upper)
        new_value, new_gradient, new_value_scale, new_scale = objective(trial, rows)
        s = trial - x
        predicted = sums.dot(gradient, s).clamp_max(0)
        rounding = 4 * sums.rounding(value)
        accepted = new_value <= value + _SUFFICIENT_DECREASE * predicted + rounding

        y = (new_gradient - gradient) * free
        s_y, y_y = sums.dot(s, y), sums.dot(y, y)
        curved = accepted & (s_y > 1e-8 * y_y.sqrt() * sums.norm(s))
        slot = (evaluations - 1) % history
        pairs_s[slot], pairs_y[slot] = s, y * curved[:, None]
        rho[slot] = torch.where(curved, 1 / s_y, 0)
        gamma = torch.where(curved, s_y / y_y, gamma)

        x, gradient = where(accepted, trial, x), where(accepted, new_gradient, gradient)
        shorter = step * _interpolated(predicted, new_value - value)
        value, value_scale = torch.where(accepted, new_value, value), torch.where(accepted, new_value_scale, value_scale)
        scale = torch.where(accepted, new_scale, scale)
        step = torch.where(accepted, 1.0, shorter)

        free = (~binding(x, gradient, lower, upper)).to(x.dtype)
        projected = gradient * free
        newest_first = [(slot - age) % history for age in range(min(evaluations, history))]
        quasi_newton = _inverse_hessian_times(sums, projected, pairs_s, pairs_y, rho, gamma, newest_first).mul_(free)
        descends = sums.dot(quasi_newton, projected) > 0
        downhill = where(descends, quasi_newton, gamma[:, None] * projected)
        direction = where(accepted, _no_longer_than(upper - lower, downhill).neg_(), direction)
    return result


def binding(x: Tensor, gradient: Tensor, lower: float, upper: float) -> Tensor:
    """The binding set: the variables at a bound whose gradient points out of the box, (b, n) bool."""
    return ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))


def _no_longer_than(width: float, direction: Tensor) -> Tensor:
    """A direction that in no variable leads further than through the box, lest all of its shorter steps end in one corner:
    where the objective is nearly linear, its inverse curvature is boundless."""
    return direction.mul_((width / torch.linalg.vector_norm(direction, torch.inf, dim=1, keepdim=True)).clamp_max(1))


def _interpolated(predicted: Tensor, change: Tensor) -> Tensor:
    """The factor for a rejected step: the minimum of the parabola through both values and the slope, kept in [0.1, 0.5]."""
    return (-0.5 * predicted / (change - predicted)).nan_to_num(0.5).clamp(0.1, 0.5)


def _inverse_hessian_times(sums, vector, pairs_s, pairs_y, rho, gamma, newest_first) -> Tensor:
    """The two-loop recursion, row by row (Nocedal and Wright, Algorithm 7.4)."""
    q = vector.clone()
    alphas = []
    for slot in newest_first:
        alpha = rho[slot] * sums.dot(pairs_s[slot], q)
        q.addcmul_(alpha[:, None], pairs_y[slot], value=-1)
        alphas.append(alpha)
    q *= gamma[:, None]
    for slot, alpha in zip(reversed(newest_first), reversed(alphas), strict=True):
        beta = rho[slot] * sums.dot(pairs_y[slot], q)
        q.addcmul_((alpha - beta)[:, None], pairs_s[slot])
    return q
