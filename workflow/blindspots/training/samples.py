"""The first iterations of a training, on images drawn at random: far from the minimum few tell as much as all."""

import torch
from torch import Tensor

from blindspots.solvers.limited_memory import CONVERGED, Pairs, Point, minimise
from blindspots.solvers.progress import Report, no_report
from blindspots.training.objective import Objective
from blindspots.training.record import Iteration, Trained, report_progress

LARGEST = 0.4  # as a fraction of all images: more of them are not worth leaving out the rest
_COARSER = 10  # times the tolerance, to which the minimum of a sample is looked for
_FEW_THEN_ALL = ((2000, 100), (8000, 150))


def begin(
    objective: Objective,
    stages: tuple[tuple[int, int], ...],
    pairs: Pairs,
    *,
    gradient_tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int]:
    """Where so many iterations on samples of so many images lead to, (n,), and how many of `max_iterations` are left.

    No sample takes more than half of what is left, so that some are left for all images.
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
    """Bring the objective's parameters in place to a minimum, by iterations on samples and then on all images.

    The record has the iterations on all images. error: what the objective's error is, for the report. For the rest see
    `training.fit`.
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
