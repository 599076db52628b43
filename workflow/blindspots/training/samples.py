"""The first iterations of a training on random samples of the images.

Far from the minimum, a few images give as good a direction as all of them.
"""

import torch
from torch import Tensor

from blindspots.solvers.limited_memory import CONVERGED, Pairs, Point, minimise
from blindspots.solvers.progress import Report, no_report
from blindspots.training.objective import Objective
from blindspots.training.record import Iteration, Trained, report_progress

# The largest sample, as a fraction of all images. For a larger one, leaving out the rest saves too little.
LARGEST = 0.4
_COARSER = 10  # the tolerance on a sample, as a multiple of the tolerance on all images
_FEW_THEN_ALL = ((2000, 100), (8000, 150))  # the images and iterations of each sample before all images


def begin(
    objective: Objective,
    stages: tuple[tuple[int, int], ...],
    pairs: Pairs,
    *,
    gradient_tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int]:
    """Minimise an objective on a sequence of growing samples.

    A sample is left out if it has more than `LARGEST` of all images.
    No sample takes more than half of the iterations left, so that some are left for all images.

    Args:
        objective: The objective, with its parameters at the start.
        stages: The number of images and the number of iterations of each sample.
        pairs: The curvature pairs of L-BFGS. Those of these iterations are added.
        gradient_tolerance: The gradient tolerance of the training on all images.
            The tolerance on a sample is ten times as large.
        max_iterations: The largest number of iterations of the whole training.
    Returns:
        The parameters after these iterations, (n,), and how many of `max_iterations` are left.
    """
    values, left, count = objective.values, max_iterations, len(objective.images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(values.device)
    for size, iterations in stages:
        if size <= LARGEST * count:
            sample = objective.of_sample(order[:size])
            limits = {
                "tolerance": _COARSER * gradient_tolerance,
                "max_iterations": min(iterations, left // 2),
            }
            found = minimise(sample, Point.of(sample, values), pairs, **limits)
            values, left = found.point.values, left - found.iterations
    return values, left


def fit(
    objective: Objective,
    *,
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    error: str,
    report: Report = no_report,
) -> Trained:
    """Minimise an objective in place, by iterations on samples first and then on all images.

    The objective's parameters are at the minimum afterwards.
    For the limits see `convergence.fit`.

    Args:
        objective: The objective, with its parameters at the start.
        gradient_tolerance: The largest component that the gradient may have at convergence.
        max_iterations: The largest number of iterations, including those on samples.
        history: The number of curvature pairs that L-BFGS keeps.
        error: The name of the objective's error in the progress report.
        report: The function that reports progress.
    Returns:
        The record of the iterations on all images.
    """
    states: list[Iteration] = []

    def record(point: Point) -> None:
        states.append(Iteration.of(objective.state(point), objective.evaluations))
        report_progress(report, "iteration", error, states)

    pairs = Pairs(history, objective.values, objective.each)
    limits = {"gradient_tolerance": gradient_tolerance, "max_iterations": max_iterations}
    values, left = begin(objective, _FEW_THEN_ALL, pairs, **limits)
    start = Point.of(objective.of_all, values)
    record(start)
    found = minimise(
        objective.of_all, start, pairs, tolerance=gradient_tolerance, max_iterations=left, after=record
    )
    objective.assign(found.point.values)
    return Trained(states, found.message == CONVERGED, found.message)
