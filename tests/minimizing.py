"""`lbfgs.Minimisation` on its own: every row of a batch is one problem, minimised from start to end."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.solvers.box_lbfgs import DROP_BELOW, Evaluation, Minimisation
from blindspots.solvers.reproducible_sums import AS_THEY_ARE, Sums


class Minimum(NamedTuple):
    """Where each row ended: x (b, n), residual (b,) relative
    to the objective's scale, evaluations (b,), status (b,)."""

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
    window: int,
    max_evaluations: int,
    sums: Sums = AS_THEY_ARE,
) -> Minimum:
    """Minimise each row of `start` (b, n) over the box [lower, upper]^n.

    objective:         (points (r, n), rows (r,)) -> Evaluation,
                       where rows says which of the b problems the points are of.
    inverse_curvature: (b,) the length of the first step for a gradient of norm 1.
    For the rest see `Minimisation` and its `end`.
    """
    rows = torch.arange(len(start), device=start.device)
    x = start.clamp(lower, upper)
    result = Minimum(x.clone(), x.new_zeros(len(x)), rows.clone(), rows.clone())
    going = torch.ones_like(rows, dtype=torch.bool)
    at = objective(x, rows)
    work = Minimisation(x, at, lower, upper, history, sums)
    work.begin(rows, x, at, inverse_curvature, forget=going)
    while True:
        ended, status, residual = work.end(tolerance, min_decrease, window, max_evaluations)
        ended &= going
        if ended.any():
            done = rows[ended]
            result.x[done], result.residual[done] = work.x[ended], residual[ended]
            result.evaluations[done], result.status[done] = work.evaluations[ended], status[ended]
            going &= ~ended
            if not going.any():
                return result
            if going.sum() < DROP_BELOW * len(rows):
                work.keep(going)
                rows, going = rows[going], going[going]
        work.turn()
        work.advance(lambda points: objective(points, rows))  # noqa: B023
