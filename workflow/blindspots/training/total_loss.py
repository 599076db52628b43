"""The loss of training: the mean cross-entropy with the paper's quadratic weight decay (Section 4.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from blindspots.networks.architectures import weight_layers
from blindspots.networks.cross_entropy import Summed, summed
from blindspots.networks.flattening import flat
from blindspots.solvers.limited_memory import Function, Point
from blindspots.training.objective import Objective
from blindspots.training.record import State

# loss_decay = λ Σ w² / divisor(k), where k is the number of units in the layer. The paper prints "per_unit".
DECAY_DIVISORS: dict[str, Callable[[int], float]] = {
    "half": lambda k: 2.0,
    "per_unit": float,
    "plain": lambda k: 1.0,
}


def decay(network: nn.Module, weights: Sequence[float], convention: str) -> Tensor:
    """Compute the weight decay loss_decay of Section 4.2.

    Each layer with k units adds λ Σ w²/2 ("half"), λ Σ w²/k ("per_unit") or λ Σ w² ("plain").
    Biases do not decay.

    Args:
        network: The network.
        weights: One λ for each layer with connection weights.
        convention: "half", "per_unit" or "plain".
    Returns:
        The weight decay, a scalar.
    Raises:
        ValueError: If the number of λ is not the number of layers with weights.
    """
    return sum(factor * weight.square().sum() for weight, factor in decaying(network, weights, convention))


def decaying(
    network: nn.Module, weights: Sequence[float], convention: str
) -> list[tuple[nn.Parameter, float]]:
    """Return the weights of each layer with the factor of Σ w² in `decay`.

    Args:
        network: The network.
        weights: One λ for each layer with connection weights.
        convention: "half", "per_unit" or "plain".
    Returns:
        The weights w and their factor, layer by layer.
    Raises:
        ValueError: If the number of λ is not the number of layers with weights.
    """
    layers = weight_layers(network)
    if len(layers) != len(weights):
        raise ValueError(
            f"{len(weights)} weight decays for {len(layers)} layers with weights: give one for each"
        )
    divisor = DECAY_DIVISORS[convention]
    return [
        (layer.weight, rate / divisor(len(layer.weight))) for rate, layer in zip(weights, layers, strict=True)
    ]


class TotalLoss(Objective):
    """The mean cross-entropy of images plus the weight decay, as a function of a network's parameters.

    Args:
        network: The network.
        images: The images, (m, ...).
        labels: Their labels, (m,).
        weight_decay: One λ for each layer with connection weights, see `decay`.
        decay_convention: The convention of the weight decay, see `decay`.
        each: The function that computes independent parts, such as `map` or `Workers.map`.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        weight_decay: Sequence[float],
        decay_convention: str,
        each: Callable = map,
    ):
        super().__init__(network.parameters(), images, each)
        self._network, self._labels = network, labels
        factors = dict(decaying(network, weight_decay, decay_convention))
        self._rates = flat([torch.full_like(p, 2 * factors.get(p, 0.0)).detach() for p in self.parameters])

    def of_all(self, values: Tensor) -> tuple[float, Tensor]:
        """Return the loss over all images and its gradient; see `Objective.of_all`."""
        self._sums = self._summed(values, self.images, self._labels)
        return self._total(values, self._sums, len(self.images))

    def of_sample(self, rows: Tensor) -> Function:
        """Return the loss over a sample of the images as a function; see `Objective.of_sample`."""
        images, labels = self.images.index_select(0, rows), self._labels[rows]
        return lambda values: self._total(values, self._summed(values, images, labels), len(images))

    def of_working_set(self, rows: Tensor, here: Point) -> Function:
        """Return an approximation of the total loss of all images that computes only a working set.

        The loss of the other images is replaced by its linear approximation at `here`.
        At `here` the function has the value and the gradient of the total loss.

        Args:
            rows: The indices of the working set's images.
            here: A point with the total loss of all images and its gradient.
        Returns:
            A function from the parameters (n,) to the approximation and its gradient (n,).
        """
        images, labels, count = self.images.index_select(0, rows), self._labels[rows], len(self.images)
        loss, gradient = self._total(here.values, self._summed(here.values, images, labels), count)
        offset, slope = here.loss - loss, here.gradient - gradient

        def function(values: Tensor) -> tuple[float, Tensor]:
            loss, gradient = self._total(values, self._summed(values, images, labels), count)
            return loss + offset + torch.dot(slope, values - here.values).item(), gradient.add_(slope)

        return function

    def state(self, point: Point) -> State:
        """Return the state at a point, with the fraction of misclassified images; see `Objective.state`."""
        return State(point.loss, point.gradient, self._sums.wrong / len(self.images))

    def doubt(self) -> Tensor:
        """Return 1 - p for each image, where p is the probability of its label.

        It is about the length of the gradient of the image's loss.
        It refers to the point at which `of_all` was computed last.

        Returns:
            1 - p, (m,).
        """
        return -torch.expm1(-self._sums.losses)

    def _summed(self, values: Tensor, images: Tensor, labels: Tensor) -> Summed:
        self._assign(values, images)
        return summed(self._network, images, labels, self.each)

    def _total(self, values: Tensor, sums: Summed, count: int) -> tuple[float, Tensor]:
        decayed = self._rates * values
        loss = sums.losses.sum(dtype=torch.float64).item() / count + torch.dot(decayed, values).item() / 2
        return loss, sums.gradient.div_(count).add_(decayed)
