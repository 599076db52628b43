"""The record of a training: the loss of all images during the training, and how the training ended."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from blindspots.solvers.progress import Report


class State(NamedTuple):
    """A total loss at the current parameters.

    Attributes:
        loss: The total loss.
        gradient: Its gradient as one vector, (n,).
        error: An error that is reported beside the loss.
    """

    loss: float
    gradient: Tensor
    error: float


class Iteration(NamedTuple):
    """The state of all images after an iteration of L-BFGS, or between two working sets.

    Attributes:
        loss: The total loss: the mean cross-entropy plus the weight decay.
        gradient_norm: ‖∇ total loss‖₂.
        gradient_max: The largest absolute component of this gradient, which decides on convergence.
        error: The fraction of the training images that is misclassified.
            In pretraining it is the root mean square of x̂ - x.
        evaluations: The cost so far, in gradients of all images.
            The gradient of a tenth of the images counts as a tenth.
    """

    loss: float
    gradient_norm: float
    gradient_max: float
    error: float
    evaluations: float

    @classmethod
    def of(cls, state: State, evaluations: float) -> "Iteration":
        """Build the record of an iteration from a state.

        Args:
            state: The state after the iteration.
            evaluations: The cost so far, in gradients of all images.
        Returns:
            The record of the iteration.
        """
        gradient = state.gradient
        return cls(state.loss, gradient.norm().item(), gradient.abs().max().item(), state.error, evaluations)

    @property
    def described(self) -> str:
        """The loss and the gradient's size as a text for the progress report."""
        return (
            f"loss {self.loss:.6f}, gradient norm {self.gradient_norm:.2e} "
            f"(largest component {self.gradient_max:.2e})"
        )


class Epoch(NamedTuple):
    """The state of all images after an epoch of minibatches, where no gradient of all images is computed.

    Attributes:
        loss: The total loss, as in `Iteration`.
        error: The fraction of the training images that is misclassified.
        evaluations: The number of epochs so far. Each counts as one gradient of all images.
    """

    loss: float
    error: float
    evaluations: float

    @property
    def described(self) -> str:
        """The loss as a text for the progress report."""
        return f"loss {self.loss:.6f}"


class Trained(NamedTuple):
    """The record of a training.

    Attributes:
        history: The recorded states, the first one first.
        converged: Whether the gradient of the total loss was within the tolerance at the end.
        message: The reason for the end of the training.
    """

    history: list[Iteration] | list[Epoch]
    converged: bool
    message: str


def report_progress(report: Report, unit: str, error: str, states: Sequence[Iteration]) -> None:
    """Report the last of some states.

    Args:
        report: The function that reports progress.
        unit: The name of the unit that the states are counted in, such as "iteration".
        error: The name of the states' error.
        states: The states so far.
    """
    last = states[-1]
    report("%s %d: %s, %s %.4f", unit, len(states), last.described, error, last.error)
