"""Local minima of the distortion itself, by sequential quadratic programming (SQP).

The paper's penalised problem (Section 4.1) ends a little away from min ‖r‖ subject to f(x + r) = l. It
balances |r| against the cross-entropy, not against the constraint. A sequential quadratic step uses the
constraint itself. It linearises the margins of the target over its nearest competitors. It then projects x
exactly onto the points within the box that satisfy these linear inequalities. (Nocedal and Wright, *Numerical
Optimization*, 2006, Chapter 18.)

The method has three stages:

- `reach` finds a point of the target class. It repeats steps to the nearest point that the linearised margins
  allow.
- `explore` makes many small steps with a gradient averaged over noise and over the previous steps. The
  networks' kinks cause many shallow local minima, which a search with the exact gradient cannot leave.
- `descend` ends in a local minimum. It measures how closely the optimality (KKT) conditions are satisfied.
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

# This factor lengthens the steps towards the target class, which the curvature tends to make too short.
_OVERSHOOT = 1.05
_REACHING_ROUNDS = 10
# These are tolerances of the projections. `_EXACT` is relative to the tolerance of the whole method.
_ROUGH, _EXACT = 1e-2, 0.02

# A step of an exploration goes a share of the way back to x. These are the shares of the first step and of
# the step after the last.
SHARE = (0.6, 0.06)

_LOOSE = LBFGS(norm="squared_l2", c_tolerance=0.1, tolerance=1e-2, max_evaluations=100, rounded=True)

_SECANTS = 5
# A trial goes this share of the way to the zero of the chord. That point usually still has the target class.
_SHORT = 0.9
# After this number of rounds, more competitors are linearised.
_PATIENCE = 4
_LEAST_DAMPING = 1e-3
# The last step may shorten the distortion by at most this fraction of the tolerance.
_LARGEST_GAIN = 0.1


@dataclass(frozen=True)
class SQP:
    """Options of the sequential quadratic method.

    Attributes:
        exploration: The number of steps of `explore`, with one gradient each. Images are explored where the
            quadratic steps do not converge.
        noise: The length of the noise in the first step of `explore`, relative to the distance ‖r‖. It
            decreases gradually.
        smoothing: The scale in logits over which the first step of `explore` smooths the smallest lead. It
            decreases gradually to a hundredth. With many classes, the nearest competitor alone misleads the
            search. 0 means no smoothing.
        momentum: The share of the average of the previous gradients that a step of `explore` keeps. In deep
            networks the gradient changes from point to point. They need more momentum than shallow ones.
        competitors: The number of other classes that are linearised at first, the nearest ones. Each costs
            one gradient in each round. The number doubles after every few rounds for the images that are not
            finished.
        tolerance: An image is finished when the quadratic step is at most this fraction of its distortion.
            The step must also shorten the distortion by at most a tenth of this fraction.
        max_rounds: The largest number of quadratic steps. The same number is allowed after an exploration.
    Raises:
        ValueError: If an option is out of its range.
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
        """The number of competitors that are linearised after a number of rounds."""
        return self.competitors * 2 ** (rounds // _PATIENCE)


def nearest(problem: Problem, options: SQP) -> Found:
    """Find local minima of the distortion, starting at the images themselves.

    The search reaches the target class and descends from there. It explores where that does not converge.

    Args:
        problem: The problem of b images. Its counts of gradient evaluations are updated.
        options: The options of the method.
    Returns:
        The minima for b images.
    """
    points = reach(problem, options.competitors)
    return minima(problem, points, problem.holds(points, problem.rows), options)


def minima(problem: Problem, points: Tensor, reached: Tensor, options: SQP) -> Found:
    """Find local minima of the distortion, starting at given points.

    Where the quadratic steps do not converge, the network has kinks, and other minima are near. There the
    search explores. If that finds no point of the target class either, the paper's procedure (Section 4.1)
    searches for one.

    Args:
        problem: The problem of b images. Its counts of gradient evaluations are updated.
        points: The points to start from, (b, n).
        reached: Which points have the target class, (b,), bool. These end no further from x than they began.
        options: The options of the method.
    Returns:
        The minima for b images.
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
    """Find points of the target class near x by a few linearised steps.

    Args:
        problem: The problem of b images. Its counts of gradient evaluations are updated.
        competitors: The number of nearest competitors that are linearised.
    Returns:
        The points, (b, n). A point may still not have the target class.
    """
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
    """Find the nearest points of the target class on a path of small averaged steps.

    A step goes a share of the way back to x. It then goes to where the smallest lead is just positive. For
    this, the lead is linearised with the average gradient. The noise of a step is the same for all images, so
    that an image's result does not depend on the others.

    Args:
        problem: The problem of b images. Its counts of gradient evaluations are updated.
        points: The points to start from, (b, n).
        reached: Which of these points have the target class, (b,), bool.
        options: The options of the method.
    Returns:
        The nearest points, (b, n), and whether each improves on its start, (b,), bool. A point improves if it
        has the target class, and is nearer to x than a start of that class.
    """
    rows, pixels, steps = problem.rows, problem.x.shape[1], options.exploration
    # Without noise and smoothing, the lead that a step linearises is the exact lead at its point.
    exact = not (options.noise or options.smoothing)
    drawn = {"generator": torch.Generator("cpu").manual_seed(0), "dtype": points.dtype, "device": "cpu"}
    nearest, distance = points.clone(), torch.where(reached, problem.distance(points, rows), torch.inf)
    improved = torch.zeros_like(reached)

    def keep(points: Tensor, away: Tensor, lead: Tensor | None = None) -> None:
        """Keep the points that have the target class and are nearer.

        The network is evaluated only for nearer points whose leads are not known.
        """
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
    """Project points onto one inequality within the box, approximately.

    This does the same as `project` for a single inequality, by two steps of Newton's method. That is accurate
    enough on a path of many points.

    Args:
        goal: The points to project, (b, n).
        normal: The normals of the inequalities normal · u ≥ offset, (b, n).
        offset: The offsets of the inequalities, (b,).
        lower: The lower bound of every variable.
        upper: The upper bound of every variable.
    Returns:
        The projected points, (b, n).
    """
    multiplier, point = torch.zeros_like(offset), goal
    # The loop reuses this memory. To allocate it in every pass would take most of the time.
    moved, product = torch.empty_like(goal), torch.empty_like(goal)
    for _ in range(2):
        slope = only_inside(normal, point, lower, upper, out=product).norm(dim=1).square_()
        newton = (multiplier + (offset - torch.mul(normal, point, out=product).sum(1)) / slope).clamp_min(0)
        multiplier = torch.where(newton.isfinite(), newton, multiplier)  # Not finite if the slope is 0.
        point = torch.addcmul(goal, multiplier[:, None], normal, out=moved).clamp_(lower, upper)
    return point


def descend(problem: Problem, points: Tensor, reached: Tensor, options: SQP) -> Found:
    """Take quadratic steps to local minima of the distortion.

    A step is corrected once for the curvature of the margins. It goes as far as the network still classifies
    the point as l. Where the curvature is too large for such a step to lead nearer, the step is damped. It
    then projects a point on the way to x instead of x itself.

    Args:
        problem: The problem of b images. Its counts of gradient evaluations are updated.
        points: The points to start from, (b, n).
        reached: Which of these points have the target class, (b,), bool. The others stay as they are.
        options: The options of the method.
    Returns:
        The minima for b images. The residual is the length of the last step before its correction, as a
        fraction of the distortion. It is 0 at a point that satisfies the optimality (KKT) conditions.
    """
    lower, upper = problem.lower, problem.upper
    exact = _EXACT * options.tolerance
    points, rows = points.clone(), problem.rows
    distance = problem.distance(points, rows)
    residual, damping = torch.full_like(distance, torch.nan), torch.ones_like(distance)
    status = torch.full_like(rows, OUT_OF_EVALUATIONS)
    classes = problem.leads(points[:1], rows[:1]).shape[1]
    # Every class has a multiplier, because the next round may have other competitors.
    multipliers = points.new_zeros(len(points), classes)

    rows = rows[reached]
    for completed in range(options.max_rounds):
        if not len(rows):
            break
        here, damped = points[rows], damping[rows][:, None]
        linear = problem.linearised(here, rows, options.competitors_after(completed))
        # The linearisation may be wrong by half of this margin.
        margin = problem.beyond(2)[rows][:, None]
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

        # Near a minimum, the gain of a step is the square of its length. If the gain is larger, another class
        # cut the previous step short.
        converged = (residual[rows] <= options.tolerance) & (gain <= _LARGEST_GAIN * options.tolerance)
        stuck = damping[rows] < _LEAST_DAMPING
        status[rows] = torch.where(converged, CONVERGED, torch.where(stuck, NO_DESCENT, OUT_OF_EVALUATIONS))
        rows = rows[~(converged | stuck)]
    return Found(points, reached, torch.full_like(distance, torch.nan), residual, status)


def _as_far_as_it_holds(problem: Problem, rows: Tensor, here: Tensor, lead: Tensor, there: Tensor) -> Tensor:
    """Find the last points of the target class on the lines between two sets of points.

    Where `there` does not have the class, the method of false position finds nearly the last point that does.

    Args:
        problem: The problem of b images.
        rows: The images of the points, (r,).
        here: The starts of the lines, (r, n), which have the target class.
        lead: The smallest leads at `here`, (r,).
        there: The ends of the lines, (r, n).
    Returns:
        The points, (r, n).
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
        share = (low_lead / (low_lead - high_lead)).nan_to_num(0.5)  # A lead may be infinite or NaN.
        tried = low + (high - low) * (_SHORT * share).clamp_min(1 - _SHORT)
        found = problem.leads(start + tried[:, None] * step, rows).amin(1) - margin
        holds = found >= 0
        # This is the Illinois variant. It halves the lead at the end that stays, so that this end moves next.
        low_lead, high_lead = (
            torch.where(holds, found, low_lead / 2),
            torch.where(holds, high_lead / 2, found),
        )
        low, high = torch.where(holds, tried, low), torch.where(holds, high, tried)
    there = there.clone()
    there[cut] = (start + low[:, None] * step).clamp_(problem.lower, problem.upper)
    return there
