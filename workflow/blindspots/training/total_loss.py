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

# loss_decay = λ Σ w² / (…), by the number k of units in the layer. The paper prints "per_unit".
DECAY_DIVISORS: dict[str, Callable[[int], float]] = {
    "half": lambda k: 2.0,
    "per_unit": float,
    "plain": lambda k: 1.0,
}


def decay(network: nn.Module, weights: Sequence[float], convention: str) -> Tensor:
    """loss_decay of Section 4.2: for each layer λ Σ w²/2 ("half"), λ Σ w²/k ("per_unit"), λ Σ w² ("plain").

    Biases do not decay. weights: one λ for each layer with connection weights; raises ValueError if the count differs.
    """
    return sum(factor * weight.square().sum() for weight, factor in decaying(network, weights, convention))


def decaying(
    network: nn.Module, weights: Sequence[float], convention: str
) -> list[tuple[nn.Parameter, float]]:
    """The weights w of each layer with the factor that Σ w² has in `decay`."""
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
    """Mean cross-entropy of images (m, ...) with labels (m,) plus decay, as a function of a network's parameters.

    weight_decay, decay_convention: see `decay`.
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
        self._sums = self._summed(values, self.images, self._labels)
        return self._total(values, self._sums, len(self.images))

    def of_sample(self, rows: Tensor) -> Function:
        images, labels = self.images.index_select(0, rows), self._labels[rows]
        return lambda values: self._total(values, self._summed(values, images, labels), len(images))

    def of_working_set(self, rows: Tensor, here: Point) -> Function:
        """The same where the loss of the images outside of `rows` is the linear function that it is near `here`."""
        images, labels, count = self.images.index_select(0, rows), self._labels[rows], len(self.images)
        loss, gradient = self._total(here.values, self._summed(here.values, images, labels), count)
        offset, slope = here.loss - loss, here.gradient - gradient

        def function(values: Tensor) -> tuple[float, Tensor]:
            loss, gradient = self._total(values, self._summed(values, images, labels), count)
            return loss + offset + torch.dot(slope, values - here.values).item(), gradient.add_(slope)

        return function

    def state(self, point: Point) -> State:
        return State(point.loss, point.gradient, self._sums.wrong / len(self.images))

    def doubt(self) -> Tensor:
        """1 - p of each image's label (m,), when `of_all` was computed last: about the length of its gradient."""
        return -torch.expm1(-self._sums.losses)

    def _summed(self, values: Tensor, images: Tensor, labels: Tensor) -> Summed:
        self._assign(values, images)
        return summed(self._network, images, labels, self.each)

    def _total(self, values: Tensor, sums: Summed, count: int) -> tuple[float, Tensor]:
        decayed = self._rates * values
        loss = sums.losses.sum(dtype=torch.float64).item() / count + torch.dot(decayed, values).item() / 2
        return loss, sums.gradient.div_(count).add_(decayed)
