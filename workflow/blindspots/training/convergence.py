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
    """Train a network in place until the total loss of all images converges.

    The training has converged if no component of the gradient exceeds `gradient_tolerance` in absolute value.
    This is the gradient of the total loss of all images, see `TotalLoss`.
    The training may also end for one of three other reasons:

    - No step lowers the loss any more in the arithmetic's precision.
    - The loss is not finite.
    - L-BFGS has made `max_iterations`. Iterations on some of the images count too.

    The record's message gives the reason.

    Args:
        network: The network.
        images: The images, (m, ...).
        labels: Their labels, (m,).
        weight_decay: One λ for each layer with connection weights, see `total_loss.decay`.
        decay_convention: The convention of the weight decay, see `total_loss.decay`.
        method: "full_batch" computes the gradient of all images at every step; its message is SciPy's.
            "working_set" reaches such a point at a fraction of the cost, see `working_set`.
        gradient_tolerance: The largest component that the gradient may have at convergence.
        max_iterations: The largest number of L-BFGS iterations.
        history: The number of curvature pairs that L-BFGS keeps.
        threads: The number of threads. It does not change the result.
        report: The function that reports progress.
    Returns:
        The record of the training.
    Raises:
        ValueError: If the method is unknown, or if a limit would allow no training.
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
