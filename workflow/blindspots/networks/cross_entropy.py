"""The cross-entropy of many images and its gradient, added up over parts of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blindspots.networks.flattening import flat
from blindspots.networks.fully_connected import Layer, Pass, backward, forward, gradient, layers_of
from blindspots.parallel.chunks import in_chunks


class Summed(NamedTuple):
    """Of b images."""

    losses: Tensor  # (b,) the cross-entropy of each
    gradient: Tensor  # flat, of the sum of these by all parameters
    wrong: int  # how many are misclassified


class Evaluated(NamedTuple):
    """Of b images."""

    loss: float  # the mean cross-entropy
    error: float  # the fraction misclassified


class Backpropagated(NamedTuple):
    """Of what entered the layers of a network."""

    gradient: Tensor  # flat, by the parameters of the layers passed
    passes: list[Pass]
    slopes: dict[
        int, Tensor
    ]  # by the values that came to a layer from the one below, or, if asked for, to the first


def summed(network: nn.Module, images: Tensor, labels: Tensor, each: Callable = map) -> Summed:
    """The cross-entropy of images (b, ...) with labels (b,), and its gradient by the network's parameters.

    each: computes the parts, as `map` or `Workers.map` does.
    """
    layers = layers_of(network)
    of_part = partial(_of_network, network) if layers is None else partial(_of_layers, layers)
    losses, total, wrong = [], None, 0
    for part in each(lambda part: of_part(*part), zip(in_chunks(images), in_chunks(labels), strict=True)):
        losses.append(part.losses)
        total = part.gradient if total is None else total.add_(part.gradient)
        wrong += part.wrong
    return Summed(torch.cat(losses), total, wrong)


@torch.no_grad()
def evaluated(network: nn.Module, images: Tensor, labels: Tensor) -> Evaluated:
    """The cross-entropy and the errors of images (b, ...) with labels (b,), without any gradient."""
    loss, wrong = 0.0, 0
    for part, truth in zip(in_chunks(images), in_chunks(labels), strict=True):
        logits = network(part)
        loss += cross_entropy(logits, truth, reduction="none").sum(dtype=torch.float64).item()
        wrong += int((logits.max(1).indices != truth).sum())
    return Evaluated(loss / len(images), wrong / len(images))


@torch.no_grad()
def backpropagated(
    layers: Sequence[Layer],
    entering: Mapping[int, Tensor],
    labels: Tensor,
    weight: float,
    to_first: bool = False,
) -> Backpropagated:
    """The gradient of the sum of the cross-entropies, times a weight, of what enters layers with these labels (b,).

    entering, to_first: see `forward` and `backward`.
    """
    passes, logits = forward(layers, entering)
    of_linear, of_values = backward(passes, _slope(logits.softmax(0), labels).mul_(weight), to_first)
    return Backpropagated(gradient(passes, of_linear), passes, of_values)


@torch.no_grad()
def _of_layers(layers: Sequence[Layer], images: Tensor, labels: Tensor) -> Summed:
    passes, logits = forward(layers, {0: images.flatten(1).t()})
    log_probabilities = logits.log_softmax(0)
    losses = -log_probabilities.gather(0, labels[None])[0]
    wrong = int((log_probabilities.max(0).indices != labels).sum())  # argmax(0) takes six times as long
    slopes, _ = backward(passes, _slope(log_probabilities.exp_(), labels))
    return Summed(losses, gradient(passes, slopes), wrong)


def _of_network(network: nn.Module, images: Tensor, labels: Tensor) -> Summed:
    """By torch's own differentiation, for any network."""
    with torch.enable_grad():
        logits = network(images)
        losses = cross_entropy(logits, labels, reduction="none")
        slope = flat(torch.autograd.grad(losses.sum(), list(network.parameters())))
    return Summed(losses.detach(), slope, int((logits.argmax(1) != labels).sum()))


def _slope(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The slopes of b labels' cross-entropies by the logits, in place of the probabilities (k, b)."""
    probabilities[labels, torch.arange(len(labels), device=labels.device)] -= 1
    return probabilities
