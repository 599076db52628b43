"""Plain full-batch L-BFGS: SciPy's implementation, with the gradient of all images at every step."""

import numpy as np
import torch
from scipy.optimize import minimize

from blindspots.solvers.limited_memory import NO_DESCENT, Point
from blindspots.solvers.progress import Report, no_report
from blindspots.training.objective import Objective
from blindspots.training.record import Iteration, Trained, report_progress


def fit(
    objective: Objective,
    *,
    gradient_tolerance: float,
    max_iterations: int,
    history: int,
    error: str = "training error",
    report: Report = no_report,
) -> Trained:
    """Minimise an objective in place by SciPy's L-BFGS-B.

    The objective's parameters are at the minimum afterwards.
    For the limits see `convergence.fit`.

    Args:
        objective: The objective, with its parameters at the start.
        gradient_tolerance: The largest component that the gradient may have at convergence.
        max_iterations: The largest number of iterations.
        history: The number of curvature pairs that L-BFGS keeps.
        error: The name of the objective's error in the progress report.
        report: The function that reports progress.
    Returns:
        The record of every iteration. The message is SciPy's, with one exception.
        If no step lowers the loss, but the gradient exceeds the tolerance, it is `NO_DESCENT`.
    """
    states: list[Iteration] = []
    start = objective.values

    def at(values: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal latest
        latest = Point.of(objective.of_all, torch.from_numpy(values).to(start))
        return latest.loss, latest.gradient.double().cpu().numpy()

    def after_iteration(intermediate_result) -> None:
        # L-BFGS-B accepts the point that it evaluated last, so `latest` describes it.
        states.append(Iteration.of(objective.state(latest), objective.evaluations))
        report_progress(report, "iteration", error, states)

    latest = None
    options = {
        "maxcor": history,
        "gtol": gradient_tolerance,
        "ftol": 0,
        "maxiter": max_iterations,
        "maxfun": 20 * max_iterations,
    }
    first = start.double().cpu().numpy()
    result = minimize(at, first, jac=True, method="L-BFGS-B", callback=after_iteration, options=options)
    objective.assign(torch.from_numpy(result.x))
    # Where SciPy gives up, its own gradient belongs to a point that it did not accept.
    _, gradient = at(result.x)
    if not states:
        states.append(Iteration.of(objective.state(latest), objective.evaluations))
    converged = bool(np.abs(gradient).max() <= gradient_tolerance)
    message = str(result.message)
    # SciPy reports convergence when single precision cannot lower the loss any more, even with tolerance 0.
    return Trained(
        states, converged, message if converged or "RELATIVE REDUCTION" not in message else NO_DESCENT
    )
