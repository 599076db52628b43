"""Box-constrained L-BFGS for a batch of independent problems: each row its own history, step and convergence.

The method is projected quasi-Newton: variables at a bound whose gradient points out of the box stay there (the binding
set), the L-BFGS direction is taken in the others, and trial points are projected onto the box. Every pass evaluates each row
once, whether that row is at a new iterate or still searching along its direction. (Bertsekas, *Projected Newton methods for
optimization problems with simple constraints*, 1982; Nocedal and Wright, *Numerical Optimization*, 2006, Algorithm 7.4.)

The two-loop recursion only ever adds up pairs (s, y) and the gradient, so that it is done on their coefficients, with the
inner products of all of these: each pass reads the history twice, instead of four times. (Chen, Wang and Zhou, *Large-scale
L-BFGS using MapReduce*, 2014, Algorithm 3.)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.solvers.reproducible_sums import Sums

CONVERGED, OUT_OF_EVALUATIONS, NO_DESCENT = 0, 1, 2

DROP_BELOW = (
    0.8  # copy the unfinished rows together when fewer than this share of those in work is unfinished
)
_SUFFICIENT_DECREASE = 1e-4
_SMALLEST_STEP = 1e-8
_LEAST_CURVATURE = (
    1e-8  # of a pair that is kept: the slope along the step has changed by this fraction of itself
)


class Evaluation(NamedTuple):
    """An objective at (b, n) points: value (b,) and gradient (b, n), with the size (b,) of either that counts as 1; and
    what else its caller wants to know of the points that are accepted, (b,)."""

    value: Tensor
    gradient: Tensor
    value_scale: Tensor
    gradient_scale: Tensor
    aside: Tensor


class End(NamedTuple):
    """Of rows: which have ended (b,) bool, how (b,), and the residual (b,), relative to the objective's scale."""

    reached: Tensor
    status: Tensor
    residual: Tensor


class Minimisation:
    """L-BFGS for b rows, each at its own place of its own problem.

    A pass is `turn`, which takes the directions, and `advance`, which evaluates a point of each; `end` then tells which rows
    are done. At any time `begin` starts rows anew, and `keep` drops others.

    lower, upper: the box of every variable.
    history:      passes whose pairs (s, y) are kept; a pass that only shortened a step has none.
    sums:         rounded, as the trial points then are too, or not; those within the objective are its own affair.

    Attributes: x (b, n); `at`, the Evaluation there; evaluations (b,), since the row began.
    """

    def __init__(self, start: Tensor, at: Evaluation, lower: float, upper: float, history: int, sums: Sums):
        b, n = start.shape
        self._lower, self._upper, self._history, self._sums = lower, upper, history, sums
        self._steepness = torch.finfo(start.dtype).max ** 0.5
        self.x, self.at = start.clone(), Evaluation(*(part.clone() for part in at))
        self.evaluations = torch.ones(b, dtype=torch.long, device=start.device)
        self._free, self._direction = torch.empty_like(start), torch.zeros_like(start)
        # The rows s and y of each pair, by age in a ring, and the projected gradient; their inner products; 1 / sᵀy, and 0
        # for a place without a pair.
        self._vectors = start.new_zeros(b, 2 * history + 1, n)
        self._products = start.new_zeros(2 * history + 1, 2 * history + 1, b)
        self._rho = start.new_zeros(history, b)
        self._newest = 0
        self._inverse_curvature, self._step, self._cut, self._reference = (
            start.new_ones(b) for _ in range(4)
        )
        self._slope = start.new_zeros(b)
        self._accepted, self._turns, self._begun = (
            torch.zeros(b, dtype=torch.bool, device=start.device) for _ in range(3)
        )

    def begin(
        self, rows: Tensor, x: Tensor, at: Evaluation, inverse_curvature: Tensor, forget: Tensor
    ) -> None:
        """Start these rows (r,) at x (r, n), of which the evaluation is known.

        inverse_curvature: (r,) the length of the first step for a gradient of norm 1, but for what the pairs say.
        forget:            (r,) bool, whether the pairs so far were of another problem, or are no finite numbers.
        """
        self.x[rows] = x
        for part, value in zip(self.at, at, strict=True):
            part[rows] = value
        self.evaluations[rows] = 1
        self._step[rows], self._turns[rows], self._reference[rows] = 1, True, at.value
        self._inverse_curvature[rows], self._begun[rows] = inverse_curvature, True
        others = rows[forget]
        self._vectors[others], self._products[..., others] = (
            0,
            0,
        )  # lest one that is no number stays one, times 0
        self._rho[:, others] = 0
        self._accepted[others] = False
        projected = torch.empty_like(x)
        self._free[rows] = self._project(x, at.gradient, out=projected)
        self._vectors[rows, -1] = projected

    def turn(self) -> None:
        """Take up the pair of the last pass, and the L-BFGS direction of every row that has a new place."""
        m, sums, vectors, products = self._history, self._sums, self._vectors, self._products
        s, y = self._newest, m + self._newest
        newest = vectors[:, y :: 2 * m - y]  # y, and the projected gradient
        by_y, by_gradient = sums.rounded(torch.bmm(newest, vectors.mT).permute(1, 2, 0).contiguous())
        products[:, y] = products[y] = by_y
        products[:, -1] = by_gradient
        s_y, y_y = by_y[s], by_y[y]
        curved = self._accepted & (s_y > _LEAST_CURVATURE * self._slope.abs())
        self._rho[s] = torch.where(curved, 1 / s_y, 0)
        self._inverse_curvature = torch.where(curved & ~self._begun, s_y / y_y, self._inverse_curvature)
        self._begun = torch.zeros_like(curved)

        newest_first = [(s - age) % m for age in range(m)]
        coefficients = _two_loops(sums, products, self._rho, self._inverse_curvature, newest_first)
        descends = (coefficients * by_gradient).sum(0) > 0
        steepest = torch.zeros_like(coefficients)
        steepest[-1] = self._inverse_curvature
        coefficients = torch.where(descends, coefficients, steepest)
        direction = torch.bmm(coefficients.T.contiguous()[:, None], vectors).squeeze(1).mul_(self._free)
        self._cut = torch.where(self._turns, self._within_the_box(direction), self._cut)
        others = (~self._turns).nonzero().squeeze(1)
        direction[others] = self._direction.index_select(0, others)
        self._direction = direction
        self._newest = (s + 1) % m

    def advance(self, objective: Callable[[Tensor], Evaluation]) -> None:
        """Evaluate each row's next point, (b, n), and go there if that lowers its value, or else shorten the step."""
        m, sums, x, at = self._history, self._sums, self.x, self.at
        s, y = self._vectors[:, self._newest], self._vectors[:, m + self._newest]
        stride = (self._step * self._cut)[:, None]
        trial = sums.round_(torch.addcmul(x, stride, self._direction, value=-1)).clamp_(
            self._lower, self._upper
        )
        new = objective(trial)
        self.evaluations += 1
        torch.sub(trial, x, out=s)
        self._slope = slope = sums.dot(at.gradient, s).clamp_max(0)
        accepted = new.value <= at.value + _SUFFICIENT_DECREASE * slope + 4 * sums.rounding(at.value)
        torch.sub(new.gradient, at.gradient, out=y).mul_(self._free)

        rejected = (~accepted).nonzero().squeeze(1)
        s[rejected], y[rejected] = 0, 0
        trial[rejected] = x.index_select(0, rejected)
        new.gradient[rejected] = at.gradient.index_select(0, rejected)
        self._step = torch.where(accepted, 1, self._step * _interpolated(slope, new.value - at.value))
        self.x = trial
        self.at = Evaluation(
            torch.where(accepted, new.value, at.value),
            new.gradient,
            *(torch.where(accepted, one, other) for one, other in zip(new[2:], at[2:], strict=True)),
        )
        self._accepted, self._turns = accepted, accepted.clone()
        self._free = self._project(self.x, self.at.gradient, out=self._vectors[:, -1])

    def end(self, tolerance, min_decrease, window: int, max_evaluations: int) -> End:
        """Which rows have ended, by limits that are numbers or (b,).

        tolerance:       a row has converged when its projected gradient, the gradient but 0 in the binding set, is at most
                         this times its scale. (Not ‖clip(x - g) - x‖, which the box cuts to the distance from a bound.)
        min_decrease:    a row is given up when as many evaluations as the window has lower its value by no more than this
                         times its scale, as happens at kinks, where the gradient never becomes small.
        max_evaluations: a row has no more of them.
        """
        residual = self._sums.norm(self._vectors[:, -1]) / self.at.gradient_scale
        converged, stuck = residual <= tolerance, self._step < _SMALLEST_STEP
        due = self.evaluations % window == 0
        stuck |= due & (self._reference - self.at.value <= min_decrease * self.at.value_scale)
        self._reference = torch.where(due, self.at.value, self._reference)
        status = torch.where(converged, CONVERGED, torch.where(stuck, NO_DESCENT, OUT_OF_EVALUATIONS))
        return End(converged | stuck | (self.evaluations >= max_evaluations), status, residual)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.x, self.at = self.x[rows], Evaluation(*(part[rows] for part in self.at))
        for name in ("_free", "_direction", "_vectors"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("evaluations", "_products", "_rho", "_inverse_curvature", "_step", "_cut", "_reference"):
            setattr(self, name, getattr(self, name)[..., rows])
        for name in ("_accepted", "_turns", "_begun", "_slope"):
            setattr(self, name, getattr(self, name)[rows])

    def _project(self, x: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
        """The gradient, but 0 in the binding set, and what is returned: 0 in that set and else 1.

        It is cut off by limits that are 0 on a bound and else larger than any gradient: torch is slow at masks on a CPU.
        """
        above = x * self._steepness
        below = above - self._upper * self._steepness
        torch.clamp(gradient, below, above.sub_(self._lower * self._steepness), out=out)
        return torch.eq(out, gradient, out=torch.empty_like(x))

    def _within_the_box(self, direction: Tensor) -> Tensor:
        """The factor (b,) by which a direction leads no further than through the box in any variable, lest all of its
        shorter steps end in one corner: where the objective is nearly linear, its inverse curvature is boundless."""
        # Not aminmax, which takes eight times as long along rows.
        largest, smallest = direction.amax(1), direction.amin(1)
        length = torch.maximum(largest, -smallest).clamp_min(
            torch.finfo(direction.dtype).tiny
        )  # -0 would give -inf
        return ((self._upper - self._lower) / length).clamp_max(1)


def binding(x: Tensor, gradient: Tensor, lower: float, upper: float) -> Tensor:
    """The binding set: the variables at a bound whose gradient points out of the box, (b, n) bool."""
    return ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))


def _interpolated(predicted: Tensor, change: Tensor) -> Tensor:
    """The factor for a rejected step: the minimum of the parabola through both values and the slope, kept in [0.1, 0.5]."""
    return (-0.5 * predicted / (change - predicted)).nan_to_num(0.5).clamp(0.1, 0.5)


def _two_loops(
    sums: Sums, products: Tensor, rho: Tensor, inverse_curvature: Tensor, newest_first: list[int]
) -> Tensor:
    """The coefficients (2m + 1, b) of all s, all y and the gradient in the inverse Hessian times the gradient (Nocedal and
    Wright, Algorithm 7.4), from the inner products (2m + 1, 2m + 1, b) of these and each pair's 1 / sᵀy (m, b)."""
    m = len(rho)
    coefficients = torch.zeros_like(products[0])
    coefficients[-1] = 1
    alphas = {}
    for pair in newest_first:
        alphas[pair] = rho[pair] * sums.rounded((products[pair] * coefficients).sum(0))
        coefficients[m + pair] -= alphas[pair]
    coefficients *= inverse_curvature
    for pair in reversed(newest_first):
        beta = rho[pair] * sums.rounded((products[m + pair] * coefficients).sum(0))
        coefficients[pair] += alphas[pair] - beta
    return coefficients
