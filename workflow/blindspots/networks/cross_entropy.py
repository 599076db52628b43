"""The cross-entropy loss of a batch of images and its gradient, summed over parts of the batch."""

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
    """The losses of b images and the gradient of their sum.

    Attributes:
        losses: The cross-entropy of each image, (b,).
        gradient: The gradient of the sum of the losses with respect to all parameters, as one vector.
        wrong: The number of misclassified images.
    """

    losses: Tensor
    gradient: Tensor
    wrong: int


class Evaluated(NamedTuple):
    """The loss and the error of a set of images.

    Attributes:
        loss: The mean cross-entropy.
        error: The fraction of misclassified images.
    """

    loss: float
    error: float


class Backpropagated(NamedTuple):
    """The results of a forward and a backward pass through the layers of a network.

    Attributes:
        gradient: The gradient with respect to the parameters of the layers in use, as one vector.
        passes: The record of the forward pass at each layer in use.
        slopes: The gradients with respect to the values that a layer gets from the layer below, (n, b). The
            keys are the indices of the passes. Index 0 has the gradient with respect to the values that enter
            the first layer in use. It is present only on request.
    """

    gradient: Tensor
    passes: list[Pass]
    slopes: dict[int, Tensor]


def summed(network: nn.Module, images: Tensor, labels: Tensor, each: Callable = map) -> Summed:
    """Compute the cross-entropy of images and its gradient with respect to the parameters of a network.

    Args:
        network: The network, which returns logits.
        images: The images, (b, ...).
        labels: The labels, (b,), integers.
        each: The function that maps over the parts of the batch, such as `map` or `Workers.map`.
    Returns:
        The losses, the gradient of their sum and the number of misclassified images.
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
    """Compute the mean cross-entropy and the error of images, without gradients.

    Args:
        network: The network, which returns logits.
        images: The images, (b, ...).
        labels: The labels, (b,), integers.
    Returns:
        The mean loss and the fraction of misclassified images.
    """
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
    """Compute the gradient of the sum of the cross-entropies, times a weight, for values that enter layers.

    Args:
        layers: The layers of the network.
        entering: The values that enter a layer, (n, columns), by the index of the layer. See `forward`.
        labels: The labels of the columns of logits, (b,), integers.
        weight: The factor of the loss.
        to_first: Whether the gradient with respect to the values that enter the first layer in use is
            computed too. See `backward`.
    Returns:
        The gradients, and the record of the forward pass.
    """
    passes, logits = forward(layers, entering)
    of_linear, of_values = backward(passes, _slope(logits.softmax(0), labels).mul_(weight), to_first)
    return Backpropagated(gradient(passes, of_linear), passes, of_values)


@torch.no_grad()
def _of_layers(layers: Sequence[Layer], images: Tensor, labels: Tensor) -> Summed:
    """The losses and the gradient of a part of the batch, for a network of fully connected layers."""
    passes, logits = forward(layers, {0: images.flatten(1).t()})
    log_probabilities = logits.log_softmax(0)
    losses = -log_probabilities.gather(0, labels[None])[0]
    wrong = int((log_probabilities.max(0).indices != labels).sum())  # Here argmax(0) takes six times as long.
    slopes, _ = backward(passes, _slope(log_probabilities.exp_(), labels))
    return Summed(losses, gradient(passes, slopes), wrong)


def _of_network(network: nn.Module, images: Tensor, labels: Tensor) -> Summed:
    """The losses and the gradient of a part of the batch, by torch's autograd, for any network."""
    with torch.enable_grad():
        logits = network(images)
        losses = cross_entropy(logits, labels, reduction="none")
        slope = flat(torch.autograd.grad(losses.sum(), list(network.parameters())))
    return Summed(losses.detach(), slope, int((logits.argmax(1) != labels).sum()))


def _slope(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The gradients of the b cross-entropies with respect to the logits, (k, b).

    They overwrite the probabilities (k, b).
    """
    probabilities[labels, torch.arange(len(labels), device=labels.device)] -= 1
    return probabilities
