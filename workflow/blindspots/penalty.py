"""The paper's procedure for D(x, l) (Section 4.1): penalised, box-constrained L-BFGS, and a line search over c.

For a penalty weight c, L-BFGS minimises c|r| + loss(x + r, l) over x + r in the box; a line search over c looks for the
smallest distortion that succeeds. (The paper prints 'minimum c': c weighs |r|, so a larger c gives a smaller distortion,
and what is looked for is the largest c that still succeeds.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from blindspots.lbfgs import Evaluation, binding, minimize_in_box
from blindspots.problem import Found, Problem
from blindspots.sums import AS_THEY_ARE, SINGLE, Sums


@dataclass(frozen=True)
class LBFGS:
    """Options of the paper's procedure.

    norm:           the penalty on r: "l2" for the paper's c‖r‖₂, "squared_l2" for c‖r‖₂².
    c_tolerance:    the search over c ends when the largest c that succeeds and the smallest that fails differ by at most
                    this fraction, or after `max_searches` values of c; until both exist, c moves by `c_growth`, its
                    square, its cube, and so on.
    tolerance, min_decrease, max_evaluations, history: of the minimisation at each c (see `minimize_in_box`).
    rounded:        to single precision, every sum and what the network says: of a network and images in double precision
                    the examples are then the same on every device. In single precision it does nothing.
    """

    norm: str = "l2"
    c_tolerance: float = 1e-3
    c_growth: float = 1.3
    max_searches: int = 30
    tolerance: float = 1e-3
    min_decrease: float = 3e-4
    max_evaluations: int = 200
    history: int = 6
    rounded: bool = False

    def __post_init__(self):
        if self.norm not in ("l2", "squared_l2"):
            raise ValueError(f"norm is {self.norm!r}: use 'l2' or 'squared_l2'")
        for name in ("history", "max_searches", "max_evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be 1 at least")
        for name in ("c_tolerance", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be larger than 0")
        if not self.min_decrease >= 0:
            raise ValueError(f"min_decrease is {self.min_decrease}: it has to be 0 or larger")
        if not self.c_growth > 1:
            raise ValueError(f"c_growth is {self.c_growth}: it has to be larger than 1")


def search(problem: Problem, options: LBFGS) -> Found:
    """The line search over c, for every image at once: move c until it is bracketed, then close in on where it fails."""
    x, rows = problem.x, problem.rows
    l2 = options.norm == "l2"
    sums = SINGLE if options.rounded else AS_THEY_ARE
    loss, gradient = map(sums.rounded, problem.loss(x, rows))
    slope = _positive(sums.norm(gradient))
    reach = _positive(loss) / slope  # how far away the loss would be zero if it went on like this

    best, distance = x.clone(), torch.full_like(slope, torch.inf)
    reached = torch.zeros_like(rows, dtype=torch.bool)
    best_c, residual = torch.full_like(slope, torch.nan), torch.full_like(slope, torch.nan)
    status = torch.zeros_like(rows)
    bracket = _Bracket(slope / 2 if l2 else slope / (4 * reach), options)

    for _ in range(options.max_searches):
        if not len(rows):
            break
        c, warm = sums.rounded(bracket.c[rows]), reached[rows]
        curvature = distance[rows] / c if l2 else 0.5 / c
        minimum = minimize_in_box(
            _objective(problem, rows, c, l2, sums),
            best[rows],
            torch.where(warm, curvature, reach[rows] / slope[rows]),
            lower=problem.lower,
            upper=problem.upper,
            history=options.history,
            tolerance=options.tolerance,
            min_decrease=options.min_decrease,
            max_evaluations=options.max_evaluations,
            sums=sums,
        )
        lead = sums.rounded(problem.leads(minimum.x, rows).amin(1) - problem.margin[rows])
        far = sums.norm(minimum.x - x[rows])
        nearer = (lead >= 0) & (far < distance[rows])
        better = rows[nearer]
        best[better], distance[better], best_c[better] = minimum.x[nearer], far[nearer], c[nearer]
        residual[better], status[better] = minimum.residual[nearer], minimum.status[nearer]
        reached[better] = True
        rows = rows[bracket.narrowed(rows, lead)]
    return Found(best, reached, best_c / problem.width ** (1 if l2 else 2), residual, status)


class _Bracket:
    """For each image the largest log c that succeeded, the smallest that failed, the leads there, and the c to try next.

    Between the two the lead is interpolated, which is quicker than halving as it falls smoothly; what is tried lies a
    little to one side of where it would be zero, so that a good guess closes the bracket from both sides in two tries.
    """

    def __init__(self, c: Tensor, options: LBFGS):
        self.options, self.tries = options, 0
        self.log_c = c.log()
        self.low, self.high = torch.full_like(c, -torch.inf), torch.full_like(c, torch.inf)
        self.low_lead, self.high_lead = torch.zeros_like(c), torch.zeros_like(c)

    @property
    def c(self) -> Tensor:
        return self.log_c.exp()

    def narrowed(self, rows: Tensor, lead: Tensor) -> Tensor:
        """Take in the leads at c, choose the next c, and say which of the rows go on: (r,) bool."""
        self.tries += 1
        tried, low, high = self.log_c[rows], self.low[rows], self.high[rows]
        width, succeeds = high - low, lead >= 0
        low, high = torch.where(succeeds, tried, low), torch.where(succeeds, high, tried)
        low_lead = torch.where(succeeds, lead, self.low_lead[rows])
        high_lead = torch.where(succeeds, self.high_lead[rows], lead)
        self.low[rows], self.high[rows], self.low_lead[rows], self.high_lead[rows] = low, high, low_lead, high_lead

        tolerance = torch.log1p(torch.tensor(self.options.c_tolerance, dtype=tried.dtype, device=tried.device))
        middle = (low + high) / 2
        crossing = low + (high - low) * low_lead / (low_lead - high_lead) - 0.45 * tolerance
        inner = 0.95 * tolerance
        guess = torch.minimum(torch.maximum(crossing, low + inner), high - inner)
        halved = (high - low <= width / 2) & (high - low > 2 * inner)
        bracketed = torch.where(halved, guess, middle)
        growth = self.tries * torch.log(torch.tensor(self.options.c_growth, dtype=tried.dtype, device=tried.device))
        self.log_c[rows] = torch.where(high.isinf(), low + growth, torch.where(low.isinf(), high - growth, bracketed))
        return high - low > tolerance


def _objective(
    problem: Problem, rows: Tensor, c: Tensor, l2: bool, sums: Sums = AS_THEY_ARE
) -> Callable[[Tensor, Tensor], Evaluation]:
    """c|r| + loss(x + r, l) as a function of x + r, for one c a row; it is measured by c|r| and the norm of its gradient."""

    def penalised(points: Tensor, some: Tensor) -> Evaluation:
        losses, gradient = map(sums.rounded, problem.loss(points, rows[some]))
        r, weight = points - problem.x[rows[some]], c[some]
        size = sums.norm(r)
        if not l2:
            slope = _positive(2 * weight * size)
            penalty = weight * size**2
            return Evaluation(losses + penalty, gradient.addcmul_(2 * weight[:, None], r), penalty, slope)
        kink = size == 0
        if kink.any():
            gradient[kink] = _smallest_subgradient(problem, sums, points[kink], gradient[kink], weight[kink])
        gradient.addcmul_(torch.where(kink, 0, weight / size)[:, None], r)
        return Evaluation(losses + weight * size, gradient, weight * size, weight)

    return penalised


def _smallest_subgradient(problem: Problem, sums: Sums, points: Tensor, gradient: Tensor, c: Tensor) -> Tensor:
    """At r = 0, where ‖r‖₂ has a kink: the loss's gradient shortened by c, or 0 where r = 0 is the minimum."""
    size = sums.norm(gradient * ~binding(points, gradient, problem.lower, problem.upper))
    return gradient * (1 - c / _positive(size)).clamp_min(0)[:, None]


def _positive(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)
