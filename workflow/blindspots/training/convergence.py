"""Training with the paper's quadratic weight decay, by L-BFGS until the loss of all images converges."""

from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, nn

from blindspots.parallel.workers import Workers
from blindspots.solvers.progress import Report, no_report
from blindspots.training import full_batch, working_set
from blindspots.training.record import Trained
from blindspots.training.total_loss import TotalLoss

METHODS = {"working_set": working_set.fit, "full_batch": full_batch.fit}


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight_decay: Sequence[float],
    decay_convention: str = "half",
    method: str = "working_set",
    gradient_tolerance: float = 1e-5,
    max_iterations: int = 2000,
    history: int = 100,
    threads: int = 1,
    report: Report = no_report,
) -> Trained:
    """Train `network` in place on images (m, ...) and labels (m,), and return the record of the way there.

    Converged means: the largest component of the gradient of the total loss of all images (see `TotalLoss`) is at most
    `gradient_tolerance`. It may also end because no step lowers the loss any more in the arithmetic's precision, because the
    loss is no number, or after `max_iterations` of L-BFGS, on whichever images: the message says why.

    method: "full_batch", which computes the gradient of all images at every step (the message is SciPy's), or "working_set",
    which comes to such a point at a fraction of the cost (see `working_set`). history: pairs that L-BFGS keeps. threads:
    their number does not change the result.

    Raises ValueError for another method, and for limits with which nothing is trained.
    """
    for name, value in {"history": history, "max_iterations": max_iterations}.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} is {value!r}: it has to be 1 at least, a whole number")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: use one of {', '.join(METHODS)}")
    if not gradient_tolerance > 0:
        raise ValueError(f"gradient_tolerance is {gradient_tolerance}: it has to be larger than 0")
    with Workers(threads) as workers:
        loss = TotalLoss(network, images, labels, weight_decay, decay_convention, workers.map)
        limits = {
            "gradient_tolerance": gradient_tolerance,
            "max_iterations": max_iterations,
            "history": history,
        }
        return METHODS[method](loss, **limits, report=report)
