"""Training by Adam on minibatches, for what does not converge: dropout, noise, examples made on the way."""

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

_RECORDED = 20  # epochs, up to twice as many: a look at all images takes as long as a fifth of an epoch


class Term(Protocol):
    """What the loss of a minibatch is; its state as torch's modules give theirs."""

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss's gradient at images (b, ...) with their labels (b,) by all parameters, one vector, without the decay."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Checkpoint(Protocol):
    """Keeps the state of a training from which it goes on, as `steps.checkpoints.Checkpoint` does in a file."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: Mapping[str, Any]) -> None: ...


class Ordinary:
    """The cross-entropy of the images alone."""

    def __init__(self, network: nn.Module):
        self.network, self.layers = network, layers_of(network)

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.layers:
            return backpropagated(self.layers, {0: images.flatten(1).t()}, labels, 1 / len(labels)).gradient
        return flat(
            torch.autograd.grad(cross_entropy(self.network(images), labels), list(self.network.parameters()))
        )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Fitted(NamedTuple):
    trained: Trained
    watched: list[float]  # the fraction of the watched images misclassified, at every point of the record


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
    """Train `network` in place by Adam on minibatches, its learning rate falling to 0 over all `epochs`.

    The record has the loss of all images (n, ...) with their labels (n,), as they are and without dropout, after the last
    epoch and after every one before, or of many twenty to forty. Nothing converges, as every step has another loss.

    term:       the loss of a minibatch; by itself the images' cross-entropy.
    watched:    other images and labels, whose error is on record too; nothing depends on it.
    checkpoint: from which a training that was killed goes on, to the same end as if it had not been.
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
                batch = images.index_select(0, rows)  # in half the time of images[rows]
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
    """The states of the generators that dropout draws from, the CPU's and each GPU's."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_dropout(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
