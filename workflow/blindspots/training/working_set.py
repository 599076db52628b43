"""Full-batch L-BFGS at a fraction of its cost: most iterations are made on the images that still matter.

Once a network classifies most images with certainty, nearly all of the gradient is that of the others. Those, the working
set, are kept as they are, and the rest is replaced by the linear function that has its loss and its gradient at the present
weights. L-BFGS goes some way down this sum, which has the value and the gradient of the full loss where it begins; then a
pass over all images chooses the working set anew. The curvature pairs are kept throughout. The first iterations, in which
the full loss is not needed yet, are on few images drawn at random.
"""

from torch import Tensor

from blindspots.solvers.limited_memory import (
    CONVERGED,
    NO_DESCENT,
    OUT_OF_ITERATIONS,
    Pairs,
    Point,
    ended,
    minimise,
)
from blindspots.solvers.progress import Report, no_report
from blindspots.training.record import Iteration, Trained, report_progress
from blindspots.training.samples import LARGEST, begin
from blindspots.training.total_loss import TotalLoss

_BEGINNING = ((2000, 60), (8000, 60))  # images drawn at random, and iterations on them
_SHARE = 0.985  # of the mass Σ (1 - p) of all images that the working set has, p the probability of an image's label,
_SMALLEST = 2000  # images in it; and if it had more than can be left out of with profit, it is all of them
_ITERATIONS = 40  # on one working set,
_SHORTER = 0.1  # or to where the gradient is this fraction of what it was,
_NEARER = 0.8  # or this fraction of the tolerance, as that of all images differs a little


def fit(
    loss: TotalLoss,
    *,
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    report: Report = no_report,
) -> Trained:
    """Bring the loss's parameters in place to a minimum of it, over all images; for the rest see `training.fit`.

    The record has every point at which the loss of all images was computed, but for those that were not kept.
    """
    states: list[Iteration] = []

    def record(point: Point) -> None:
        states.append(Iteration.of(loss.state(point), loss.evaluations))
        report_progress(report, "pass", "training error", states)

    pairs = Pairs(history, loss.values, loss.each)
    limits = {"gradient_tolerance": gradient_tolerance, "max_iterations": max_iterations}
    values, left = begin(loss, _BEGINNING, pairs, **limits)
    here = Point.of(loss.of_all, values)
    record(here)
    smallest = _SMALLEST
    while not (message := ended(here, gradient_tolerance) or (None if left else OUT_OF_ITERATIONS)):
        limit = min(_ITERATIONS, left)
        rows = _hardest(loss.doubt(), smallest)
        if rows is None:
            found = minimise(
                loss.of_all, here, pairs, tolerance=gradient_tolerance, max_iterations=limit, after=record
            )
            here, left = found.point, left - found.iterations
            if found.message == NO_DESCENT:
                message = NO_DESCENT
                break
        else:
            shorter = max(_SHORTER * here.gradient.abs().max().item(), _NEARER * gradient_tolerance)
            found = minimise(
                loss.of_working_set(rows, here), here, pairs, tolerance=shorter, max_iterations=limit
            )
            left -= found.iterations
            there = Point.of(loss.of_all, found.point.values)
            if there.loss < here.loss:
                here = there
                record(here)
            else:  # the loss of the others was not linear enough, and shows at `there` who they are
                smallest *= 2
    loss.assign(here.values)
    return Trained(states, message == CONVERGED, message)


def _hardest(doubt: Tensor, smallest: int) -> Tensor | None:
    """The rows of the working set, by the doubt about each image (m,); None for all of them."""
    mass, order = doubt.cpu().double().sort(descending=True, stable=True)
    size = max(smallest, 1 + int((mass.cumsum(0) < _SHARE * mass.sum()).sum()))
    return order[:size].to(doubt.device) if size <= LARGEST * len(doubt) else None
