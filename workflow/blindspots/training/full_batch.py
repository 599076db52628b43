"""Full-batch L-BFGS as it is plainly meant: SciPy's, on the gradient of all images at every step."""

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
    """Bring the objective's parameters in place to a minimum of it, and return the record of every iteration.

    error: what the objective's error is, for the report. For the rest see `training.fit`.
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
    _, gradient = at(result.x)  # as SciPy's own, where it gives up, is that of a point that it did not take
    if not states:
        states.append(Iteration.of(objective.state(latest), objective.evaluations))
    converged = bool(np.abs(gradient).max() <= gradient_tolerance)
    message = str(result.message)
    # Though its tolerance is 0, SciPy takes a loss that single precision cannot lower any more for convergence.
    return Trained(
        states, converged, message if converged or "RELATIVE REDUCTION" not in message else NO_DESCENT
    )
