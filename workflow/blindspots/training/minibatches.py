"""Training by Adam on minibatches, for losses that do not converge.

Such losses come from dropout, from noise, and from examples that are made during training.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blindspots.networks.cross_entropy import backpropagated, evaluated
from blindspots.networks.flattening import flat
from blindspots.networks.fully_connected import layers_of
from blindspots.solvers.progress import Report, no_report
from blindspots.training.adam import Adam
from blindspots.training.record import Epoch, Trained
from blindspots.training.total_loss import decay, decaying

# The smallest number of epochs on record in a long training.
# Not all epochs are on record, because evaluating all images takes a fifth of the time of an epoch.
_RECORDED = 20


class Term(Protocol):
    """The loss of a minibatch, with a state that is saved and loaded as in a torch module."""

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of a minibatch's loss without the weight decay.

        Args:
            images: The images of the minibatch, (b, ...).
            labels: Their labels, (b,).
        Returns:
            The gradient with respect to all parameters of the network, as one vector.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the term."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        ...


class Checkpoint(Protocol):
    """A store for the state of a training, from which the training can continue.

    `steps.checkpoints.Checkpoint` stores it in a file.
    """

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved last, or None if there is none."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a state in place of the last one."""
        ...


class Ordinary:
    """The mean cross-entropy of the images alone.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module):
        self.network, self.layers = network, layers_of(network)

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean cross-entropy; see `Term.gradient`."""
        if self.layers:
            return backpropagated(self.layers, {0: images.flatten(1).t()}, labels, 1 / len(labels)).gradient
        return flat(
            torch.autograd.grad(cross_entropy(self.network(images), labels), list(self.network.parameters()))
        )

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing, since there is no state."""
        pass


class Fitted(NamedTuple):
    """A training on minibatches and the error on watched images.

    Attributes:
        trained: The record of the training.
        watched: The fraction of the watched images that is misclassified, at each point of the record.
            It is empty without watched images.
    """

    trained: Trained
    watched: list[float]


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight_decay: Sequence[float],
    decay_convention: str = "half",
    size: int,
    epochs: int,
    learning_rate: float,
    seed: int,
    term: Term | None = None,
    watched: tuple[Tensor, Tensor] | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = no_report,
) -> Fitted:
    """Train a network in place by Adam on minibatches, with a learning rate that falls to 0.

    The record has the total loss of all images as they are, without dropout.
    It has every epoch if there are fewer than 40, and otherwise 20 to 30 of them.
    The last epoch is always on record.
    The training never counts as converged, since every step has another loss.

    Args:
        network: The network.
        images: The images, (n, ...).
        labels: Their labels, (n,).
        weight_decay: One λ for each layer with connection weights, see `total_loss.decay`.
        decay_convention: The convention of the weight decay, see `total_loss.decay`.
        size: The number of images in a minibatch.
        epochs: The number of epochs, over which the learning rate falls to 0.
        learning_rate: The learning rate of the first step.
        seed: The seed of the order of the images and of dropout.
        term: The loss of a minibatch, by default the mean cross-entropy of its images.
        watched: Other images and their labels, whose error is recorded too. They do not affect the training.
        checkpoint: The store of the state. A training that was killed continues from it.
            The result is the same as without the interruption.
        report: The function that reports progress.
    Returns:
        The record of the training and the errors on the watched images.
    Raises:
        ValueError: If the number of weight decays is not the number of layers with weights.
    """
    parameters = list(network.parameters())
    factors = dict(decaying(network, weight_decay, decay_convention))
    slopes = [2 * factors.get(parameter, 0.0) for parameter in parameters]
    optimiser = Adam(parameters, slopes, learning_rate, steps=epochs * -(-len(images) // size))
    term = term or Ordinary(network)
    parts = {"network": network, "optimiser": optimiser, "term": term}
    order = torch.Generator().manual_seed(seed)
    begun, states, errors = 0, [], []
    with torch.random.fork_rng():  # dropout draws from torch's own generator
        torch.manual_seed(seed)
        if checkpoint and (kept := checkpoint.load()):
            for name, part in parts.items():
                part.load_state_dict(kept[name])
            order.set_state(kept["order"])
            _set_dropout(kept["dropout"])
            begun, states, errors = kept["epoch"], [Epoch(*state) for state in kept["states"]], kept["errors"]
            report("goes on after epoch %d", begun)
        for epoch in range(begun + 1, epochs + 1):
            network.train()
            for rows in torch.randperm(len(images), generator=order).to(images.device).split(size):
                batch = images.index_select(0, rows)  # takes half the time of images[rows]
                optimiser.step(term.gradient(batch, labels[rows]))
            network.eval()
            if (epochs - epoch) % max(1, epochs // _RECORDED) == 0:
                loss, error = evaluated(network, images, labels)
                loss += decay(network, weight_decay, decay_convention).item()
                states.append(Epoch(loss, error, evaluations=epoch))
                if watched:
                    errors.append(evaluated(network, *watched).error)
                report("epoch %d of %d: %s, training error %.4f", epoch, epochs, states[-1].described, error)
            if checkpoint:
                kept = {name: part.state_dict() for name, part in parts.items()}
                drawn = {"order": order.get_state(), "dropout": _dropout()}
                record = {"epoch": epoch, "states": [tuple(state) for state in states], "errors": errors}
                checkpoint.save(kept | drawn | record)
    return Fitted(Trained(states, False, f"{epochs} epochs of minibatches of {size}"), errors)


def _dropout() -> list[Tensor]:
    """Return the states of the generators that dropout draws from: the CPU's and each GPU's."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_dropout(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
