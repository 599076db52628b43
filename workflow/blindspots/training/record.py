"""The record of a training: where the loss of all images stood on the way, and how it ended."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from blindspots.solvers.progress import Report


class State(NamedTuple):
    """A total loss at the parameters' present values: its flat gradient, and an error to report beside it."""

    loss: float
    gradient: Tensor
    error: float


class Iteration(NamedTuple):
    """The state of all images: after an iteration of L-BFGS, or between two working sets."""

    loss: float  # the total loss: mean cross-entropy plus decay
    gradient_norm: float  # ‖∇ total loss‖₂
    gradient_max: float  # its largest component, which convergence is judged by
    error: (
        float  # fraction of the training images misclassified; in pretraining the root mean square of x̂ - x
    )
    evaluations: (
        float  # what it cost so far, in gradients of all images; that of a tenth of them counts as a tenth
    )

    @classmethod
    def of(cls, state: State, evaluations: float) -> "Iteration":
        gradient = state.gradient
        return cls(state.loss, gradient.norm().item(), gradient.abs().max().item(), state.error, evaluations)

    @property
    def described(self) -> str:
        return f"loss {self.loss:.6f}, gradient norm {self.gradient_norm:.2e} (largest component {self.gradient_max:.2e})"


class Epoch(NamedTuple):
    """The state of all images after an epoch of minibatches, where no gradient of all is computed."""

    loss: float  # these as in an iteration
    error: float
    evaluations: float

    @property
    def described(self) -> str:
        return f"loss {self.loss:.6f}"


class Trained(NamedTuple):
    history: list[Iteration] | list[Epoch]
    converged: bool
    message: str


def report_progress(report: Report, unit: str, error: str, states: Sequence[Iteration]) -> None:
    """Report the last of the states; error says what the error is that they have."""
    last = states[-1]
    report("%s %d: %s, %s %.4f", unit, len(states), last.described, error, last.error)
