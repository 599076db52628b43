"""A local minimum of the distortion itself, under the constraint that defines it, by sequential quadratic steps.

The penalised problem of the paper's procedure ends a little away from min ‖r‖ subject to f(x + r) = l: what c weighs is
the cross-entropy, not the constraint. A sequential quadratic step takes up the constraint: linearise the margins of the
target over its nearest competitors, and project x onto what that allows within the box, exactly. (Nocedal and Wright,
*Numerical Optimization*, 2006, Chapter 18.) Three stages use it:

- `reach`   goes to the target's class, to the nearest point that the linearised margins allow, and on until it is there;
- `explore` goes many small steps with a gradient averaged over noise and over the steps before: the networks' kinks make
            many shallow local minima, out of which an exact gradient leads no way;
- `descend` ends in a local minimum, and says how nearly it satisfies the optimality (KKT) conditions.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from blindspots.attack.penalty import LBFGS, search
from blindspots.attack.problem import Found, Problem
from blindspots.solvers.box_lbfgs import CONVERGED, NO_DESCENT, OUT_OF_EVALUATIONS
from blindspots.solvers.projection import project
from blindspots.solvers.row_operations import only_inside, where

_OVERSHOOT = 1.05  # of steps towards the target's class, which the curvature tends to cut short
_REACHING_ROUNDS = 10
_ROUGH, _EXACT = 1e-2, 0.02  # tolerances of the projections, the latter relative to that of the whole

SHARE = (
    0.6,
    0.06,
)  # of the way back to x that a step of the exploration goes: the first one, and the one after the last

_LOOSE = LBFGS(norm="squared_l2", c_tolerance=0.1, tolerance=1e-2, max_evaluations=100, rounded=True)

_SECANTS = 5
_SHORT = 0.9  # of the way to where a chord crosses zero: as a rule of the class still
_PATIENCE = 4  # rounds after which more competitors are linearised
_LEAST_DAMPING = 1e-3
_LARGEST_GAIN = 0.1  # times the tolerance, of the last step


@dataclass(frozen=True)
class SQP:
    """Options of the sequential quadratic method.

    exploration: steps of `explore`, a gradient each, for images where the quadratic steps do not converge.
    noise:       how many times the distance the noise of its first step is long, which becomes less by and by.
    smoothing:   logits over which its first step smooths the smallest lead, which becomes less by and by, down to a
                 hundredth: where there are many classes, the nearest competitor alone leads astray. 0 for no smoothing.
    momentum:    how much of the average of the gradients before one of its steps keeps. Deep networks, whose gradients
                 change from point to point, need more than shallow ones.
    competitors: how many of the other classes are linearised at first, the nearest ones; each costs a gradient a round.
                 Images that are not done after some rounds get twice as many, and so on.
    tolerance:   an image is done when the quadratic step is at most this fraction of its distortion, and shortens that by
                 at most a tenth as much.
    max_rounds:  quadratic steps, and as many again after an exploration.
    """

    exploration: int = 100
    noise: float = 2.0
    smoothing: float = 0.0
    momentum: float = 0.5
    competitors: int = 3
    tolerance: float = 5e-3
    max_rounds: int = 8

    def __post_init__(self):
        for name, least in {"exploration": 0, "competitors": 1, "max_rounds": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be {least} at least")
        for name in ("noise", "smoothing"):
            if not (getattr(self, name) >= 0 and isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be 0 or larger, and finite")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: it has to be at least 0 and less than 1")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}: it has to be larger than 0")

    def competitors_after(self, rounds: int) -> int:
        """How many competitors are linearised after so many rounds."""
        return self.competitors * 2 ** (rounds // _PATIENCE)


def nearest(problem: Problem, options: SQP) -> Found:
    """From the images themselves: the minima that the target's class is first reached at, or that exploration finds."""
    points = reach(problem, options.competitors)
    return minima(problem, points, problem.holds(points, problem.rows), options)


def minima(problem: Problem, points: Tensor, reached: Tensor, options: SQP) -> Found:
    """Local minima from (b, n) points, of which some have reached (b,) the target's class; those end no further from x.

    Where the quadratic steps do not converge, the network has kinks there, and other minima are near: it is explored. Where
    the class has not been reached at all, the paper's procedure looks for it in the end.
    """
    found = descend(problem, points, reached, options)
    kinks = (found.status != CONVERGED) & (options.exploration > 0)
    rough = problem.rows[~reached | kinks]
    if not len(rough):
        return found
    rest = problem.subset(rough)
    points, reached = found.points[rough], reached[rough]
    explored, better = explore(rest, points, reached, options)
    points, reached = where(better, explored, points), reached | better
    missed = rest.rows[~reached]
    if len(missed):
        last = rest.subset(missed)
        penalised = search(last, _LOOSE)
        points[missed], reached[missed] = penalised.points, penalised.reached
        rest.gradient_evaluations[missed] += last.gradient_evaluations
    again = descend(rest, points, reached, options)
    problem.gradient_evaluations[rough] += rest.gradient_evaluations
    for whole, part in zip(found, again, strict=True):
        whole[rough] = part
    return found


def reach(problem: Problem, competitors: int) -> Tensor:
    """Points (b, n) of the target's class near x, as far as a few linearised steps find them."""
    points, rows = problem.x.clone(), problem.rows
    for _ in range(_REACHING_ROUNDS):
        rows = rows[~problem.holds(points[rows], rows)]
        if not len(rows):
            break
        here = points[rows]
        linear = problem.linearised(here, rows, competitors)
        offsets = linear.offsets(here) + problem.beyond(2)[rows][:, None]
        there = project(here, linear.gradients, offsets, problem.lower, problem.upper, tolerance=_ROUGH).point
        points[rows] = (here + _OVERSHOOT * (there - here)).clamp_(problem.lower, problem.upper)
    return points


def explore(problem: Problem, points: Tensor, reached: Tensor, options: SQP) -> tuple[Tensor, Tensor]:
    """The nearest points (b, n) of the target's class on a path of small averaged steps, and whether they are nearer (b,)
    than where the path began, for those that had reached the class there.

    A step goes a share of the way back to x, and then to where the smallest lead, linearised with the average gradient,
    is just positive. The noise at a step is the same for all images: an image's result does not depend on the others.
    """
    rows, pixels, steps = problem.rows, problem.x.shape[1], options.exploration
    exact = not (options.noise or options.smoothing)  # the lead that a step linearises is the path's own
    drawn = {"generator": torch.Generator("cpu").manual_seed(0), "dtype": points.dtype, "device": "cpu"}
    nearest, distance = points.clone(), torch.where(reached, problem.distance(points, rows), torch.inf)
    improved = torch.zeros_like(reached)

    def keep(points: Tensor, away: Tensor, lead: Tensor | None = None) -> None:
        """Take what is of the class and nearer; a lead that is known need not be asked for, nor one that is too far."""
        nearer = (away < distance).nonzero().squeeze(1)
        if not len(nearer):
            return
        known = problem.leads(points[nearer], nearer).amin(1) if lead is None else lead[nearer]
        better = nearer[known >= problem.margin[nearer]]
        nearest[better], distance[better], improved[better] = points[better], away[better], True

    average, beyond = None, problem.beyond(10)
    for step in range(steps):
        r = points - problem.x
        away = r.norm(dim=1)
        first, last = SHARE
        cooled = (last / first) ** (step / steps)
        around = points
        if options.noise:
            noise = torch.randn(pixels, **drawn).to(points.device) / pixels**0.5
            around = (points + (options.noise * cooled * away)[:, None] * noise).clamp_(
                problem.lower, problem.upper
            )
        lead, gradient = problem.smallest_lead(around, rows, options.smoothing * cooled**2)
        keep(points, away, lead if exact else None)
        if average is not None and options.momentum:
            gradient.sub_(average).mul_(1 - options.momentum).add_(average)
        average = gradient

        goal = r.mul_(-first * cooled).add_(points)
        offsets = torch.linalg.vecdot(average, around) - lead + beyond
        points = onto_half_space(goal, average, offsets, problem.lower, problem.upper)
    keep(points, problem.distance(points, rows))
    return nearest, improved


def onto_half_space(goal: Tensor, normal: Tensor, offset: Tensor, lower: float, upper: float) -> Tensor:
    """As `project` for a single inequality, by two steps of Newton's method: near enough on a path of many points."""
    multiplier, point = torch.zeros_like(offset), goal
    moved, product = (
        torch.empty_like(goal),
        torch.empty_like(goal),
    )  # new memory at every turn would take most of the time
    for _ in range(2):
        slope = only_inside(normal, point, lower, upper, out=product).norm(dim=1).square_()
        newton = (multiplier + (offset - torch.mul(normal, point, out=product).sum(1)) / slope).clamp_min(0)
        multiplier = torch.where(newton.isfinite(), newton, multiplier)  # no slope: no way on
        point = torch.addcmul(goal, multiplier[:, None], normal, out=moved).clamp_(lower, upper)
    return point


def descend(problem: Problem, points: Tensor, reached: Tensor, options: SQP) -> Found:
    """Quadratic steps from the (b, n) points that have reached (b,) the target's class to local minima of the distortion.

    A step is corrected once for the curvature of the margins, and goes as far as the network still answers l. Where the
    curvature is too large for that to lead nearer, it is damped: not x is projected, but a point on the way to it. The
    residual is the length of the last step before its correction as a fraction of the distortion: 0 at a point that
    satisfies the optimality conditions.
    """
    lower, upper = problem.lower, problem.upper
    exact = _EXACT * options.tolerance
    points, rows = points.clone(), problem.rows
    distance = problem.distance(points, rows)
    residual, damping = torch.full_like(distance, torch.nan), torch.ones_like(distance)
    status = torch.full_like(rows, OUT_OF_EVALUATIONS)
    classes = problem.leads(points[:1], rows[:1]).shape[1]
    multipliers = points.new_zeros(
        len(points), classes
    )  # of every class: the competitors of the next round may be others

    rows = rows[reached]
    for completed in range(options.max_rounds):
        if not len(rows):
            break
        here, damped = points[rows], damping[rows][:, None]
        linear = problem.linearised(here, rows, options.competitors_after(completed))
        margin = problem.beyond(2)[rows][:, None]  # of which the linearisation may be wrong by half
        offsets = linear.offsets(here) + margin
        goal = here + damped * (problem.x[rows] - here)
        warm = multipliers[rows].gather(1, linear.classes) * damped
        quadratic = project(goal, linear.gradients, offsets, lower, upper, start=warm, tolerance=exact)
        residual[rows] = (quadratic.point - here).norm(dim=1) / (damping[rows] * distance[rows])
        gain = (1 - problem.distance(quadratic.point, rows) / distance[rows]) / damping[rows]

        missing = margin - problem.leads(quadratic.point, rows).gather(1, linear.classes)
        offsets = offsets + missing.clamp_min(0)
        start = quadratic.multipliers
        corrected = project(goal, linear.gradients, offsets, lower, upper, start=start, tolerance=exact)
        multipliers[rows] = multipliers[rows].scatter(1, linear.classes, corrected.multipliers / damped)

        there = _as_far_as_it_holds(problem, rows, here, linear.leads[:, 0], corrected.point)
        size = problem.distance(there, rows)
        nearer = size < distance[rows]
        worthwhile = size < distance[rows] * (1 - 0.1 * options.tolerance**2 * damping[rows])
        points[rows[nearer]], distance[rows[nearer]] = there[nearer], size[nearer]
        damping[rows] = torch.where(worthwhile, (2 * damping[rows]).clamp_max(1), damping[rows] / 4)

        # Near a minimum a step gains its own square; one that gains more was cut short by another class the time before.
        converged = (residual[rows] <= options.tolerance) & (gain <= _LARGEST_GAIN * options.tolerance)
        stuck = damping[rows] < _LEAST_DAMPING
        status[rows] = torch.where(converged, CONVERGED, torch.where(stuck, NO_DESCENT, OUT_OF_EVALUATIONS))
        rows = rows[~(converged | stuck)]
    return Found(points, reached, torch.full_like(distance, torch.nan), residual, status)


def _as_far_as_it_holds(problem: Problem, rows: Tensor, here: Tensor, lead: Tensor, there: Tensor) -> Tensor:
    """Points (r, n) of the target's class on the ways from here, where its smallest lead is known (r,), to there.

    Where `there` is not of the class, nearly the last ones that are: by the method of false position.
    """
    margin = problem.margin[rows]
    beyond = problem.leads(there, rows).amin(1) - margin
    cut = (~(beyond >= 0)).nonzero().squeeze(1)
    if not len(cut):
        return there
    rows, margin, start, step = rows[cut], margin[cut], here[cut], there[cut] - here[cut]
    low, high = torch.zeros_like(margin), torch.ones_like(margin)
    low_lead, high_lead = (lead[cut] - margin).clamp_min(0), beyond[cut]
    for _ in range(_SECANTS):
        share = (low_lead / (low_lead - high_lead)).nan_to_num(0.5)  # where a lead is infinite, or no number
        tried = low + (high - low) * (_SHORT * share).clamp_min(1 - _SHORT)
        found = problem.leads(start + tried[:, None] * step, rows).amin(1) - margin
        holds = found >= 0
        # Illinois: the end that stays counts less, so that it moves the next time.
        low_lead, high_lead = (
            torch.where(holds, found, low_lead / 2),
            torch.where(holds, high_lead / 2, found),
        )
        low, high = torch.where(holds, tried, low), torch.where(holds, high, tried)
    there = there.clone()
    there[cut] = (start + low[:, None] * step).clamp_(problem.lower, problem.upper)
    return there
