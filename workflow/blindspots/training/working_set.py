"""Full-batch L-BFGS at a fraction of its cost: most iterations use only the images that still matter.

Once a network classifies most images with certainty, nearly all of the gradient comes from the others.
Those others form the working set, whose loss is computed exactly.
The loss of the rest is replaced by its linear approximation at the current weights.
The sum has the value and the gradient of the full loss where L-BFGS begins.
L-BFGS goes some way down this sum; then a pass over all images chooses the working set anew.
The curvature pairs are kept throughout.
The first iterations do not need the full loss yet and use a few images drawn at random.
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

_BEGINNING = ((2000, 60), (8000, 60))  # the images and iterations of each first sample
# The working set holds this share of the sum Σ (1 - p) over all images, where p is the probability of an
# image's label. All images are used instead if it would have more than `LARGEST` of them.
_SHARE = 0.985
_SMALLEST = 2000  # the smallest number of images in a working set, at first
_ITERATIONS = 40  # the largest number of iterations on one working set
_SHORTER = 0.1  # the tolerance on a working set, as a fraction of the gradient's largest component before
# The smallest tolerance on a working set, as a fraction of the training's tolerance.
# It is below 1, because the gradient of all images differs a little.
_NEARER = 0.8


def fit(
    loss: TotalLoss,
    *,
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    report: Report = no_report,
) -> Trained:
    """Minimise a total loss over all images in place, with working sets.

    The network's parameters are at the minimum afterwards.
    For the limits see `convergence.fit`.

    Args:
        loss: The total loss, with its parameters at the start.
        gradient_tolerance: The largest component that the gradient may have at convergence.
        max_iterations: The largest number of iterations, on whichever images.
        history: The number of curvature pairs that L-BFGS keeps.
        report: The function that reports progress.
    Returns:
        The record of every point at which the loss of all images was computed and that was kept.
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
            else:
                # The loss of the other images was not linear enough.
                # Their losses at `there` now show which of them matter.
                smallest *= 2
    loss.assign(here.values)
    return Trained(states, message == CONVERGED, message)


def _hardest(doubt: Tensor, smallest: int) -> Tensor | None:
    """Return the rows of the working set, by the doubt about each image (m,), or None for all images."""
    mass, order = doubt.cpu().double().sort(descending=True, stable=True)
    size = max(smallest, 1 + int((mass.cumsum(0) < _SHARE * mass.sum()).sum()))
    return order[:size].to(doubt.device) if size <= LARGEST * len(doubt) else None
