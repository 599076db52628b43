"""Box-constrained L-BFGS for a batch of independent problems.

Each row of the batch is one problem with its own history, step and convergence.
The paper approximates D(x, l) by box-constrained L-BFGS (Section 4.1).

The method is projected quasi-Newton:
- Variables at a bound stay there if the descent direction leads out of the box. They are the binding set.
- The other variables follow the L-BFGS direction.
- Trial points are projected onto the box.

Every pass evaluates each row once.
The row is then either at a new iterate or still searching along its direction.
References: Bertsekas, *Projected Newton methods for optimization problems with simple constraints*, 1982;
Nocedal and Wright, *Numerical Optimization*, 2006, Algorithm 7.4.

The two-loop recursion only adds multiples of the pairs (s, y) and of the gradient.
It is therefore computed on their coefficients, from the inner products of all these vectors.
Each pass thus reads the history twice instead of four times.
Reference: Chen, Wang and Zhou, *Large-scale L-BFGS using MapReduce*, 2014, Algorithm 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.solvers.reproducible_sums import Sums

CONVERGED, OUT_OF_EVALUATIONS, NO_DESCENT = 0, 1, 2

# The unfinished rows are copied together when their share of the rows in work is smaller than this.
DROP_BELOW = 0.8
_SUFFICIENT_DECREASE = 1e-4
_SMALLEST_STEP = 1e-8
# A pair is kept only if the slope along the step has changed by more than this fraction of itself.
_LEAST_CURVATURE = 1e-8


class Evaluation(NamedTuple):
    """An objective evaluated at (b, n) points.

    Attributes:
        value: The values, (b,).
        gradient: The gradients, (b, n).
        value_scale: The scale of the values, (b,). Changes of a value are compared with it.
        gradient_scale: The scale of the gradients, (b,). Norms of gradients are compared with it.
        aside: Another quantity that the caller needs at the accepted points, (b,).
    """

    value: Tensor
    gradient: Tensor
    value_scale: Tensor
    gradient_scale: Tensor
    aside: Tensor


class End(NamedTuple):
    """Which rows have ended, and how.

    Attributes:
        reached: Whether a row has ended, (b,), bool.
        status: How a row ended, (b,): CONVERGED, OUT_OF_EVALUATIONS or NO_DESCENT.
        residual: The norm of the projected gradient relative to the scale of the objective's gradient, (b,).
    """

    reached: Tensor
    status: Tensor
    residual: Tensor


class Minimisation:
    """L-BFGS for b rows, each of which is at its own point of its own problem.

    A pass consists of two calls: `turn` computes the directions, and `advance` evaluates a point of each row.
    After a pass `end` reports which rows have ended.
    At any time `begin` can restart rows, and `keep` can drop others.

    Args:
        start: The first point of each row, (b, n).
        at: The evaluation at these points.
        lower: The lower bound of every variable.
        upper: The upper bound of every variable.
        history: The number of passes whose pairs (s, y) are kept. A pass that only shortened a step has no
            pair.
        sums: Whether inner products, norms and trial points are rounded. Sums within the objective are not
            affected.
    Attributes:
        x: The current points, (b, n).
        at: The evaluation at the current points.
        evaluations: The number of evaluations since the row began, (b,).
    """

    def __init__(self, start: Tensor, at: Evaluation, lower: float, upper: float, history: int, sums: Sums):
        b, n = start.shape
        self._lower, self._upper, self._history, self._sums = lower, upper, history, sums
        self._steepness = torch.finfo(start.dtype).max ** 0.5
        self.x, self.at = start.clone(), Evaluation(*(part.clone() for part in at))
        self.evaluations = torch.ones(b, dtype=torch.long, device=start.device)
        self._free, self._direction = torch.empty_like(start), torch.zeros_like(start)
        # The vectors s of all pairs come first, then the vectors y, then the projected gradient.
        # The pairs form a ring buffer. `_products` has the inner products of all these vectors.
        # `_rho` has 1 / sᵀy of each pair, and 0 for a place without a pair.
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
        """Start or restart rows at given points.

        Args:
            rows: The indices of the rows, (r,), integers.
            x: The points, (r, n).
            at: The evaluation at these points.
            inverse_curvature: The inverse curvature of the objective, (r,). Without pairs it is the length of
                the first step for a gradient of norm 1.
            forget: Whether the pairs of a row are dropped, (r,), bool. They are dropped if they come from
                another problem or are not finite.
        """
        self.x[rows] = x
        for part, value in zip(self.at, at, strict=True):
            part[rows] = value
        self.evaluations[rows] = 1
        self._step[rows], self._turns[rows], self._reference[rows] = 1, True, at.value
        self._inverse_curvature[rows], self._begun[rows] = inverse_curvature, True
        others = rows[forget]
        # It is not enough to set `_rho` to 0, because the product of NaN and 0 is NaN.
        self._vectors[others], self._products[..., others] = 0, 0
        self._rho[:, others] = 0
        self._accepted[others] = False
        projected = torch.empty_like(x)
        self._free[rows] = self._project(x, at.gradient, out=projected)
        self._vectors[rows, -1] = projected

    def turn(self) -> None:
        """Store the pair of the last pass, and compute the L-BFGS direction of every row at a new point.

        A row whose direction is not a descent direction takes the direction of steepest descent.
        A row that is still searching keeps its direction.
        """
        m, sums, vectors, products = self._history, self._sums, self._vectors, self._products
        s, y = self._newest, m + self._newest
        newest = vectors[:, y :: 2 * m - y]  # These are the newest y and the projected gradient.
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
        """Evaluate the next point of each row.

        A row moves to this point if its value is sufficiently lower there. Otherwise its step is shortened.

        Args:
            objective: The function that evaluates points, (b, n).
        """
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
        """Determine which rows have ended.

        A row has converged when the norm of its projected gradient is small.
        The projected gradient is the gradient with 0 in the binding set.
        The norm ‖clip(x - g) - x‖ is not used, because the box limits it to the distance from a bound.

        A row is given up when its value decreases too slowly.
        This happens at kinks, where the gradient never becomes small.
        A row is also given up when its step has become too short.

        Args:
            tolerance: The largest norm of the projected gradient of a converged row, relative to the scale of
                the gradient. A number or (b,).
            min_decrease: The decrease of the value, relative to its scale, that `window` evaluations have to
                exceed. A number or (b,).
            window: The number of evaluations over which the decrease is measured.
            max_evaluations: The largest number of evaluations of a row.
        Returns:
            The rows that have ended, their status and their residuals.
        """
        residual = self._sums.norm(self._vectors[:, -1]) / self.at.gradient_scale
        converged, stuck = residual <= tolerance, self._step < _SMALLEST_STEP
        due = self.evaluations % window == 0
        stuck |= due & (self._reference - self.at.value <= min_decrease * self.at.value_scale)
        self._reference = torch.where(due, self.at.value, self._reference)
        status = torch.where(converged, CONVERGED, torch.where(stuck, NO_DESCENT, OUT_OF_EVALUATIONS))
        return End(converged | stuck | (self.evaluations >= max_evaluations), status, residual)

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows.

        Args:
            rows: The rows that are kept, as indices or as a mask (b,).
        """
        self.x, self.at = self.x[rows], Evaluation(*(part[rows] for part in self.at))
        for name in ("_free", "_direction", "_vectors"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("evaluations", "_products", "_rho", "_inverse_curvature", "_step", "_cut", "_reference"):
            setattr(self, name, getattr(self, name)[..., rows])
        for name in ("_accepted", "_turns", "_begun", "_slope"):
            setattr(self, name, getattr(self, name)[rows])

    def _project(self, x: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
        """Write the projected gradient (b, n) to `out`, and return a mask (b, n).

        The mask is 0 in the binding set and 1 elsewhere.
        The gradient is clipped by limits that are 0 at a bound and larger than any gradient elsewhere.
        Masks would be slower, because torch is slow at masks on a CPU.
        """
        above = x * self._steepness
        below = above - self._upper * self._steepness
        torch.clamp(gradient, below, above.sub_(self._lower * self._steepness), out=out)
        return torch.eq(out, gradient, out=torch.empty_like(x))

    def _within_the_box(self, direction: Tensor) -> Tensor:
        """The factor (b,) that limits a direction to the width of the box in every variable.

        Where the objective is nearly linear, its inverse curvature is unbounded.
        Without the limit, all shorter steps along such a direction would end in one corner of the box.
        """
        # The function aminmax takes eight times as long along rows.
        largest, smallest = direction.amax(1), direction.amin(1)
        # The lower limit matters for a length of -0, which would give a factor of -inf.
        length = torch.maximum(largest, -smallest).clamp_min(torch.finfo(direction.dtype).tiny)
        return ((self._upper - self._lower) / length).clamp_max(1)


def binding(x: Tensor, gradient: Tensor, lower: float, upper: float) -> Tensor:
    """Find the binding set: the variables at a bound where the descent direction leads out of the box.

    Args:
        x: The points, (b, n), in the box.
        gradient: The gradients at these points, (b, n).
        lower: The lower bound of every variable.
        upper: The upper bound of every variable.
    Returns:
        Whether a variable is in the binding set, (b, n), bool.
    """
    return ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))


def _interpolated(predicted: Tensor, change: Tensor) -> Tensor:
    """The factor for a rejected step, in [0.1, 0.5].

    It is the minimum of the parabola through both values and the slope, clipped to this range.
    """
    return (-0.5 * predicted / (change - predicted)).nan_to_num(0.5).clamp(0.1, 0.5)


def _two_loops(
    sums: Sums, products: Tensor, rho: Tensor, inverse_curvature: Tensor, newest_first: list[int]
) -> Tensor:
    """The inverse Hessian times the gradient, as coefficients (2m + 1, b) of all s, all y and the gradient.

    It is computed from the inner products (2m + 1, 2m + 1, b) of these vectors and from 1 / sᵀy (m, b).
    Reference: Nocedal and Wright, Algorithm 7.4.
    """
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
