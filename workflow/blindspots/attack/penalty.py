"""The paper's procedure for D(x, l) (Section 4.1): box-constrained L-BFGS and a line search over c.

For a penalty weight c, L-BFGS minimises c|r| + loss(x + r, l) over x + r in the box. A line search over c
finds the smallest distortion that succeeds. The paper prints 'minimum c', but c weighs |r|, so that a larger
c gives a smaller distortion. The search therefore finds the largest c that still succeeds.

Every image has its own line search. A few hundred images are processed at a time. When one is finished, the
next takes its place. The minimisation for a new c starts at the best point so far, whose loss and gradient
are known. It uses the curvature that was found for the previous c.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.attack.problem import Found, Loss, Problem
from blindspots.solvers.box_lbfgs import DROP_BELOW, Evaluation, Minimisation, binding
from blindspots.solvers.reproducible_sums import AS_THEY_ARE, SINGLE, Sums

# Images at a time on a CPU. More exceed its cache. With fewer, the fixed cost of each operation dominates.
IN_WORK = 256
# This is relative to the loss's slope. A much larger first c needs more values of c.
_FIRST_C = 0.4


@dataclass(frozen=True)
class LBFGS:
    """Options of the paper's procedure (Section 4.1).

    While c is known only roughly, a minimisation only has to show whether this c succeeds. `looseness`
    therefore enlarges its tolerance and min_decrease. The factor is the width of the bracket around c when
    the minimisation begins, relative to c_tolerance, and at most `looseness`. The nearest success may come
    from such a minimisation, which has then converged by its own tolerance.

    Attributes:
        norm: The penalty on r, "l2" for the paper's c‖r‖₂ or "squared_l2" for c‖r‖₂².
        c_tolerance: The search over c ends when the largest c that succeeds and the smallest c that fails
            differ by at most this fraction.
        c_growth: The factor by which c changes at first. Until both a success and a failure exist, c changes
            by this factor, its square, its cube and so on.
        max_searches: The number of values of c after which the search ends at the latest.
        tolerance: The tolerance of the minimisation at each c, relative to the norm of the penalty's gradient
            (see `box_lbfgs.Minimisation.end`).
        min_decrease: The smallest decrease of the objective within a window, relative to the penalty (see
            `box_lbfgs.Minimisation.end`).
        window: The number of evaluations after which the decrease is checked (see
            `box_lbfgs.Minimisation.end`).
        looseness: The largest factor on tolerance and min_decrease, at least 1.
        max_evaluations: The largest number of evaluations in the minimisation at each c.
        history: The number of passes that L-BFGS remembers (see `box_lbfgs.Minimisation`).
        rounded: Whether to round every sum and the network's outputs to single precision. For a network and
            images in double precision, the examples are then the same on every device. In single precision it
            has no effect.
    Raises:
        ValueError: If an option is out of its range.
    """

    norm: str = "l2"
    c_tolerance: float = 1e-3
    c_growth: float = 1.3
    max_searches: int = 30
    tolerance: float = 1e-3
    min_decrease: float = 3e-4
    window: int = 10
    looseness: float = 1.0
    max_evaluations: int = 200
    history: int = 6
    rounded: bool = False

    def __post_init__(self):
        if self.norm not in ("l2", "squared_l2"):
            raise ValueError(f"norm is {self.norm!r}: use 'l2' or 'squared_l2'")
        for name in ("history", "window", "max_searches", "max_evaluations", "looseness"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be 1 at least")
        for name in ("c_tolerance", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be larger than 0")
        if not self.min_decrease >= 0:
            raise ValueError(f"min_decrease is {self.min_decrease}: it has to be 0 or larger")
        if not self.c_growth > 1:
            raise ValueError(f"c_growth is {self.c_growth}: it has to be larger than 1")


def search(problem: Problem, options: LBFGS) -> Found:
    """Run the line search over c for every image (Section 4.1).

    The search moves c until it is between a success and a failure. It then narrows this bracket.

    Args:
        problem: The problem of b images. Its counts of gradient evaluations are updated.
        options: The options of the procedure.
    Returns:
        The nearest successes for b images.
    """
    penalty = _Penalty(
        options.norm == "l2", problem.lower, problem.upper, SINGLE if options.rounded else AS_THEY_ARE
    )
    in_work = len(problem.x) if problem.x.is_cuda else min(IN_WORK, len(problem.x))
    best = _Best.at_the_images(problem, penalty, in_work)
    slope = _positive(penalty.sums.norm(best.loss.gradients))
    reach = _positive(best.loss.values) / slope  # At this distance a linear loss would be zero.
    bracket = _Bracket(_FIRST_C * slope if penalty.l2 else slope / (4 * reach), options)

    rows, following = problem.rows[:in_work].clone(), in_work
    origin, c = problem.x[rows], penalty.sums.rounded(bracket.c[rows])
    going = torch.ones_like(rows, dtype=torch.bool)
    at = penalty.of(_rows(best.loss, rows), origin, torch.zeros_like(origin), c)
    work = Minimisation(origin, at, problem.lower, problem.upper, options.history, penalty.sums)
    work.begin(going.nonzero().squeeze(1), origin, at, (reach / slope)[rows], forget=going)
    while True:
        work.turn()
        work.advance(
            # This function is called only before the variables that it uses change.
            lambda points: penalty.of(problem.loss(points, rows), points, points - origin, c)  # noqa: B023
        )
        # Places without an image are still computed, but they are not counted.
        problem.gradient_evaluations[rows[~going]] -= 1
        slack = bracket.slack(rows)
        end = work.end(
            options.tolerance * slack, options.min_decrease * slack, options.window, options.max_evaluations
        )
        ended = (end.reached & going).nonzero().squeeze(1)
        if not len(ended):
            continue
        lead = penalty.sums.rounded(work.at.aside[ended] - problem.margin[rows[ended]])
        best.take_in(penalty, rows, ended, lead >= 0, work, end, origin, c)
        on = bracket.narrowed(rows[ended], lead)

        fresh = problem.rows[following : following + int((~on).sum())]
        following += len(fresh)
        done = ended[~on]
        filled, emptied = done[: len(fresh)], done[len(fresh) :]
        rows[filled], origin[filled], going[emptied] = fresh, problem.x[fresh], False
        if not going.any():
            break
        begun = torch.cat([ended[on], filled])
        these = rows[begun]
        c[begun] = penalty.sums.rounded(bracket.c[these])
        x = best.points.index_select(0, these)
        at = penalty.of(_rows(best.loss, these), x, x - origin.index_select(0, begun), c[begun])
        forget = torch.cat([~end.residual[ended[on]].isfinite(), torch.ones_like(filled, dtype=torch.bool)])
        curvature_of_penalty = c[begun] / best.distance[these] if penalty.l2 else 2 * c[begun]
        inverse_curvature = torch.where(best.reached[these], 1 / curvature_of_penalty, (reach / slope)[these])
        work.begin(begun, x, at, inverse_curvature, forget)
        if going.sum() < DROP_BELOW * len(rows):
            work.keep(going)
            rows, origin, c, going = rows[going], origin[going], c[going], going[going]
    power = 1 if penalty.l2 else 2
    return Found(best.points, best.reached, best.c / problem.width**power, best.residual, best.status)


class _Penalty:
    """The penalty c|r| and its sum with the loss."""

    def __init__(self, l2: bool, lower: float, upper: float, sums: Sums):
        self.l2, self._lower, self._upper, self.sums = l2, lower, upper, sums

    def of(self, loss: Loss, points: Tensor, r: Tensor, c: Tensor) -> Evaluation:
        """Evaluate c|r| + loss and its gradient.

        The gradient overwrites that of the loss. The scales of the evaluation are c|r| and the norm of its
        gradient.

        Args:
            loss: The loss at r points, with its gradients (r, n).
            points: The points x + r, (r, n).
            r: The perturbations, (r, n).
            c: The penalty weights, (r,).
        Returns:
            The penalised objective at the points.
        """
        loss = Loss(
            self.sums.rounded(loss.values), self.sums.round_(loss.gradients), self.sums.rounded(loss.leads)
        )
        size = self.sums.norm(r)
        pull = self._pull(size, c)
        if self.l2:
            penalty, scale, kink = c * size, c, (size == 0).nonzero().squeeze(1)
            if len(kink):
                loss.gradients[kink] = self._smallest_subgradient(points[kink], loss.gradients[kink], c[kink])
        else:
            penalty, scale = c * size**2, _positive(2 * c * size)
        return Evaluation(
            loss.values + penalty, loss.gradients.addcmul_(pull[:, None], r), penalty, scale, loss.leads
        )

    def loss(self, at: Evaluation, r: Tensor, c: Tensor) -> Loss:
        """The loss in an evaluation of the penalised objective at r (r, n), which is not 0."""
        pull = self._pull(self.sums.norm(r), c)
        return Loss(
            *map(self.sums.rounded, (at.value - at.value_scale, at.gradient - pull[:, None] * r, at.aside))
        )

    def _pull(self, size: Tensor, c: Tensor) -> Tensor:
        """The factor of r in the penalty's gradient, (r,), which is 0 at the kink r = 0."""
        return torch.where(size == 0, 0, c / size) if self.l2 else 2 * c

    def _smallest_subgradient(self, points: Tensor, gradient: Tensor, c: Tensor) -> Tensor:
        """The gradient at r = 0, where ‖r‖₂ has a kink, (r, n).

        It is the loss's gradient shortened by c, or 0 where r = 0 is the minimum.
        """
        size = self.sums.norm(gradient * ~binding(points, gradient, self._lower, self._upper))
        return gradient * (1 - c / _positive(size)).clamp_min(0)[:, None]


class _Best(NamedTuple):
    """Each image's nearest success, or the image itself until there is one.

    Attributes:
        points: The points, (b, n).
        loss: The loss at the points.
        distance: The distance ‖r‖₂ of each success, (b,). Infinite without success.
        reached: Whether there is a success, (b,), bool.
        c: The penalty weight of the success, (b,). NaN without success.
        residual: The residual of the success, (b,). NaN without success.
        status: How the minimisation of the success ended, (b,).
    """

    points: Tensor
    loss: Loss
    distance: Tensor
    reached: Tensor
    c: Tensor
    residual: Tensor
    status: Tensor

    @classmethod
    def at_the_images(cls, problem: Problem, penalty: _Penalty, at_once: int) -> "_Best":
        """Evaluate the loss at the images, a number of them at once, before any success."""
        parts = [problem.loss(problem.x[rows], rows) for rows in problem.rows.split(at_once)]
        loss = Loss(*(penalty.sums.rounded(torch.cat(values)) for values in zip(*parts, strict=True)))
        unknown = torch.full_like(loss.values, torch.nan)
        return cls(
            problem.x.clone(),
            loss,
            torch.full_like(unknown, torch.inf),
            torch.zeros_like(problem.rows, dtype=torch.bool),
            unknown,
            unknown.clone(),
            torch.zeros_like(problem.rows),
        )

    def take_in(self, penalty, rows, ended, succeeds, work, end, origin, c) -> None:
        """Record the minimisations that have ended with a nearer success than before."""
        r = work.x.index_select(0, ended) - origin.index_select(0, ended)
        far = penalty.sums.norm(r)
        nearer = succeeds & (far < self.distance[rows[ended]])
        places, r = ended[nearer], r[nearer]
        these = rows[places]
        self.points[these], self.distance[these], self.reached[these] = work.x[places], far[nearer], True
        self.c[these], self.residual[these], self.status[these] = (
            c[places],
            end.residual[places],
            end.status[places],
        )
        at = _rows(work.at, places)
        for whole, part in zip(self.loss, penalty.loss(at, r, c[places]), strict=True):
            whole[these] = part


class _Bracket:
    """The bracket around each image's c, and the next c to try.

    The bracket consists of the largest log c that succeeded, the smallest log c that failed, and the leads
    there. Between the two the lead is interpolated. This is faster than halving, because the lead falls
    smoothly. The next c lies a little to one side of the interpolated zero. A good guess then closes the
    bracket from both sides in two tries.
    """

    def __init__(self, c: Tensor, options: LBFGS):
        self._max_searches, self._looseness = options.max_searches, options.looseness
        self._tolerance, self._growth = math.log1p(options.c_tolerance), math.log(options.c_growth)
        self.log_c, self._tries = c.log(), torch.zeros_like(c)
        self._low, self._high = torch.full_like(c, -torch.inf), torch.full_like(c, torch.inf)
        self._low_lead, self._high_lead = torch.zeros_like(c), torch.zeros_like(c)

    @property
    def c(self) -> Tensor:
        """The penalty weights to try next, (b,)."""
        return self.log_c.exp()

    def slack(self, rows: Tensor) -> Tensor:
        """The factor by which the tolerances of a minimisation may be larger, (r,).

        It is the width of the bracket relative to c_tolerance, at least 1 and at most the looseness. A rough
        minimisation is enough to show whether c succeeds.
        """
        width = (self._high[rows] - self._low[rows]) / self._tolerance
        return width.clamp(1, self._looseness)

    def narrowed(self, rows: Tensor, lead: Tensor) -> Tensor:
        """Record the leads at c and choose the next c. Return which rows continue, (r,), bool."""
        self._tries[rows] += 1
        tries, tried, low, high = (part[rows] for part in (self._tries, self.log_c, self._low, self._high))
        width, succeeds = high - low, lead >= 0
        low, high = torch.where(succeeds, tried, low), torch.where(succeeds, high, tried)
        low_lead = torch.where(succeeds, lead, self._low_lead[rows])
        high_lead = torch.where(succeeds, self._high_lead[rows], lead)
        self._low[rows], self._high[rows], self._low_lead[rows], self._high_lead[rows] = (
            low,
            high,
            low_lead,
            high_lead,
        )

        middle = (low + high) / 2
        crossing = low + (high - low) * low_lead / (low_lead - high_lead) - 0.45 * self._tolerance
        inner = 0.95 * self._tolerance
        guess = torch.minimum(torch.maximum(crossing, low + inner), high - inner)
        halved = (high - low <= width / 2) & (high - low > 2 * inner)
        bracketed = torch.where(halved, guess, middle)
        growth = tries * self._growth
        self.log_c[rows] = torch.where(
            high.isinf(), low + growth, torch.where(low.isinf(), high - growth, bracketed)
        )
        return (high - low > self._tolerance) & (tries < self._max_searches)


def _positive(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def _rows(values: NamedTuple, rows: Tensor) -> NamedTuple:
    return type(values)(*(part.index_select(0, rows) for part in values))
