"""The paper's procedure for D(x, l) (Section 4.1): penalised, box-constrained L-BFGS, and a line search over c.

For a penalty weight c, L-BFGS minimises c|r| + loss(x + r, l) over x + r in the box; a line search over c looks for the
smallest distortion that succeeds. (The paper prints 'minimum c': c weighs |r|, so a larger c gives a smaller distortion,
and what is looked for is the largest c that still succeeds.)

Every image goes through its own line search. Some hundred are in work at a time, and as one is done the next takes its
place. The minimisation for a new c starts at the best point so far, whose loss and gradient are known, with the curvature
that was found for the c before.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from blindspots.attack.problem import Found, Loss, Problem
from blindspots.solvers.box_lbfgs import DROP_BELOW, Evaluation, Minimisation, binding
from blindspots.solvers.reproducible_sums import AS_THEY_ARE, SINGLE, Sums

IN_WORK = 256  # images at a time on a CPU: more leave its cache, fewer do not outweigh what an operation costs by itself
_FIRST_C = 0.4  # of the loss's slope: from much more, more c have to be tried


@dataclass(frozen=True)
class LBFGS:
    """Options of the paper's procedure.

    norm:           the penalty on r: "l2" for the paper's c‖r‖₂, "squared_l2" for c‖r‖₂².
    c_tolerance:    the search over c ends when the largest c that succeeds and the smallest that fails differ by at most
                    this fraction, or after `max_searches` values of c; until both exist, c moves by `c_growth`, its
                    square, its cube, and so on.
    tolerance, min_decrease, window, max_evaluations, history: of the minimisation at each c (see `lbfgs.Minimisation`).
    looseness:      tolerance and min_decrease are as many times larger as c is known less than to c_tolerance when a
                    minimisation begins, but at most this many times: at first it is only asked whether c succeeds. The
                    nearest success may be of such a minimisation, which has then converged by its own tolerance.
    rounded:        to single precision, every sum and what the network says: of a network and images in double precision
                    the examples are then the same on every device. In single precision it does nothing.
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
    """The line search over c, for every image: move c until it is bracketed, then close in on where it fails."""
    penalty = _Penalty(
        options.norm == "l2", problem.lower, problem.upper, SINGLE if options.rounded else AS_THEY_ARE
    )
    in_work = len(problem.x) if problem.x.is_cuda else min(IN_WORK, len(problem.x))
    best = _Best.at_the_images(problem, penalty, in_work)
    slope = _positive(penalty.sums.norm(best.loss.gradients))
    reach = _positive(best.loss.values) / slope  # how far away the loss would be zero if it went on like this
    bracket = _Bracket(_FIRST_C * slope if penalty.l2 else slope / (4 * reach), options)

    rows, following = problem.rows[:in_work].clone(), in_work
    origin, c = problem.x[rows], penalty.sums.rounded(bracket.c[rows])
    going = torch.ones_like(rows, dtype=torch.bool)
    at = penalty.of(_rows(best.loss, rows), origin, torch.zeros_like(origin), c)
    work = Minimisation(origin, at, problem.lower, problem.upper, options.history, penalty.sums)
    work.begin(going.nonzero().squeeze(1), origin, at, (reach / slope)[rows], forget=going)
    while True:
        work.turn()
        work.advance(lambda points: penalty.of(problem.loss(points, rows), points, points - origin, c))  # noqa: B023
        problem.gradient_evaluations[rows[~going]] -= (
            1  # places that have no image any more are computed, but cost none
        )
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
    """c|r| and what it makes of the loss."""

    def __init__(self, l2: bool, lower: float, upper: float, sums: Sums):
        self.l2, self._lower, self._upper, self.sums = l2, lower, upper, sums

    def of(self, loss: Loss, points: Tensor, r: Tensor, c: Tensor) -> Evaluation:
        """c|r| + loss at (r, n) points x + r, and its gradient, in place of the loss's; it is measured by c|r| and the norm
        of that one's gradient."""
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
        """What of an evaluation at r (r, n) other than 0 is the loss."""
        pull = self._pull(self.sums.norm(r), c)
        return Loss(
            *map(self.sums.rounded, (at.value - at.value_scale, at.gradient - pull[:, None] * r, at.aside))
        )

    def _pull(self, size: Tensor, c: Tensor) -> Tensor:
        """What r is multiplied by in the gradient, which is 0 at the kink."""
        return torch.where(size == 0, 0, c / size) if self.l2 else 2 * c

    def _smallest_subgradient(self, points: Tensor, gradient: Tensor, c: Tensor) -> Tensor:
        """At r = 0, where ‖r‖₂ has a kink: the loss's gradient shortened by c, or 0 where r = 0 is the minimum."""
        size = self.sums.norm(gradient * ~binding(points, gradient, self._lower, self._upper))
        return gradient * (1 - c / _positive(size)).clamp_min(0)[:, None]


class _Best(NamedTuple):
    """Each image's nearest success, or at first the image itself: its points (b, n), the loss there, its distance (b,), and
    what `Found` has of it."""

    points: Tensor
    loss: Loss
    distance: Tensor
    reached: Tensor
    c: Tensor
    residual: Tensor
    status: Tensor

    @classmethod
    def at_the_images(cls, problem: Problem, penalty: _Penalty, at_once: int) -> "_Best":
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
        """Where minimisations have ended with a success nearer than before."""
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
    """For each image the largest log c that succeeded, the smallest that failed, the leads there, and the c to try next.

    Between the two the lead is interpolated, which is quicker than halving as it falls smoothly; what is tried lies a
    little to one side of where it would be zero, so that a good guess closes the bracket from both sides in two tries.
    """

    def __init__(self, c: Tensor, options: LBFGS):
        self._max_searches, self._looseness = options.max_searches, options.looseness
        self._tolerance, self._growth = math.log1p(options.c_tolerance), math.log(options.c_growth)
        self.log_c, self._tries = c.log(), torch.zeros_like(c)
        self._low, self._high = torch.full_like(c, -torch.inf), torch.full_like(c, torch.inf)
        self._low_lead, self._high_lead = torch.zeros_like(c), torch.zeros_like(c)

    @property
    def c(self) -> Tensor:
        return self.log_c.exp()

    def slack(self, rows: Tensor) -> Tensor:
        """How many times larger the tolerances of a minimisation may be, (r,): as many as c is known less than it has to be,
        as it is only asked whether c succeeds."""
        width = (self._high[rows] - self._low[rows]) / self._tolerance
        return width.clamp(1, self._looseness)

    def narrowed(self, rows: Tensor, lead: Tensor) -> Tensor:
        """Take in the leads at c, choose the next c, and say which of the rows go on: (r,) bool."""
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
