"""Training with perturbed outputs of layers (Section 4.2, before its tables), and two baselines.

"A subtle, but essential detail is that adversarial examples are generated for each layer output and are used
to train all the layers above."
A layer's output is here the input or the output of an activation.
Each term below adds a cross-entropy to a minibatch's loss, for every such output h that has a norm.
It is the cross-entropy of the layers above h at perturbed outputs h + r:

- `Pools`: r leads to the nearest h + r of another class, from pools that are renewed continuously.
  This is the paper's scheme.
- `Steps`: r has a fixed norm and the direction of the loss's gradient at h.
- `Noise`: r has the same norm and a random direction.

The perturbed outputs are constants: they do not train the layers below them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blindspots.attack.quick_attack import near_examples
from blindspots.attack.targets import second_targets
from blindspots.networks.cross_entropy import Backpropagated, backpropagated
from blindspots.networks.fully_connected import forward, layers_of
from blindspots.solvers.row_operations import where

_PIXELS = (0.0, 1.0)
_NO_DIRECTION = 1e-12  # a shorter direction moves an output by less than the norm


class _Layerwise:
    """The part that all terms share: the layers of a network and the norm of the perturbation at each.

    Args:
        network: A fully connected network.
        norms: ‖r‖₂ at the input of each layer. An input with norm 0 is not perturbed.
        weight: The weight of the mean cross-entropy at each perturbed output.
        seed: The seed of the random draws.
    Raises:
        ValueError: If the network is not fully connected, or if there is not one norm for each of its layers.
    """

    def __init__(self, network: nn.Sequential, norms: Sequence[float], weight: float, seed: int):
        self.layers = layers_of(network)
        if self.layers is None:
            raise ValueError("only the layers of fully connected networks are trained with perturbed outputs")
        if len(norms) != len(self.layers):
            raise ValueError(
                f"{len(norms)} norms for the input and {len(self.layers) - 1} hidden outputs: give one each"
            )
        self.norms, self.weight = norms, weight
        self.bounds = [_PIXELS, *(layer.activation.range for layer in self.layers[:-1])]
        self.generator = torch.Generator().manual_seed(seed)

    def places(self) -> Iterator[int]:
        """Return the places of the layers whose inputs are perturbed."""
        return (place for place, norm in enumerate(self.norms) if norm)

    def of_images(self, images: Tensor, labels: Tensor, to_first: bool = False) -> Backpropagated:
        """Compute the gradient of the images' mean cross-entropy.

        Args:
            images: The images, (b, ...).
            labels: Their labels, (b,).
            to_first: Whether the gradient with respect to the input is computed too.
        Returns:
            The gradient, and the values that it was computed from.
        """
        return backpropagated(self.layers, {0: images.flatten(1).t()}, labels, 1 / len(labels), to_first)

    def added(self, to: Tensor, perturbed: Mapping[int, Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Add the gradient at the perturbed outputs to another gradient, in place.

        Only the layers from the lowest perturbed place upwards have a part in it.

        Args:
            to: The gradient with respect to all parameters, as one vector.
            perturbed: The perturbed outputs, (n, b), by their places.
            labels: The labels of the outputs of each place, (b,), in the same order.
        Returns:
            The gradient `to`.
        """
        if perturbed:
            above = backpropagated(
                self.layers, perturbed, torch.cat(labels), self.weight / len(labels[0])
            ).gradient
            to[-len(above) :] += above
        return to

    def moved(self, place: int, outputs: Tensor, directions: Tensor) -> Tensor:
        """Move outputs by the norm of their place, within their range.

        Args:
            place: The place of the outputs.
            outputs: The outputs, (n, b).
            directions: The directions, (n, b), of any length.
        Returns:
            The moved outputs, (n, b).
        """
        factors = self.norms[place] / directions.norm(dim=0).clamp_min(_NO_DIRECTION)
        return torch.addcmul(outputs, directions, factors).clamp_(*self.bounds[place])

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.generator.set_state(state["generator"])


class Steps(_Layerwise):
    """A step of fixed norm along the gradient of the minibatch's loss at each output.

    The step stays within the output's range.
    """

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the loss at the images and at the steps; see `minibatches.Term.gradient`."""
        plain = self.of_images(images, labels, to_first=self.norms[0] > 0)
        moved = {
            place: self.moved(place, plain.passes[place].values, plain.slopes[place])
            for place in self.places()
        }
        return self.added(plain.gradient, moved, [labels] * len(moved))


class Noise(_Layerwise):
    """A step of the same norm in a random direction, which is Gaussian noise of that size."""

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the loss at the images and with noise; see `minibatches.Term.gradient`."""
        plain = self.of_images(images, labels)
        outputs = {place: plain.passes[place].values for place in self.places()}
        moved = {
            place: self.moved(place, output, self._directions(output)) for place, output in outputs.items()
        }
        return self.added(plain.gradient, moved, [labels] * len(moved))

    def _directions(self, like: Tensor) -> Tensor:
        return torch.randn(like.t().shape, generator=self.generator, dtype=like.dtype).to(like.device).t()


class Pools(_Layerwise):
    """The paper's scheme: a pool of adversarial examples for each output, which is continuously renewed.

    A random part of the pool is replaced by new examples again and again.
    Each example comes from the output of a random training image.
    It is the nearest output of the most likely other class that the attack finds.
    Every minibatch trains with as many random examples of each pool as it has images.
    An example keeps the label of the image that it comes from.

    Args:
        network: A fully connected network.
        norms: ‖r‖₂ at the input of each layer. An input with norm 0 has no pool.
        weight: The weight of the mean cross-entropy at the examples of each pool.
        seed: The seed of the random draws.
        images: The training images, (m, ...).
        labels: Their labels, (m,).
        amplified: Whether each example is moved to the norm's distance in its own direction.
            Otherwise only an example that is farther away is moved back to this distance.
        size: The number of examples in each pool. A pool grows to this size as examples are made.
        replaced: The number of new examples for each pool in a pass over the images, as a multiple of `size`.
        batch: The number of examples that are made at a time.
    """

    def __init__(
        self,
        network: nn.Sequential,
        norms: Sequence[float],
        weight: float,
        seed: int,
        images: Tensor,
        labels: Tensor,
        amplified: bool,
        size: int,
        replaced: float,
        batch: int,
    ):
        super().__init__(network, norms, weight, seed)
        self.network, self.images, self.labels = network, images, labels
        self.amplified, self.size, self.batch = amplified, size, batch
        self.rate = replaced * size / len(images)  # new examples of each pool for each training image
        self.owed = 0.0
        self.pools: dict[int, tuple[Tensor, Tensor]] = {}

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the loss at the images and at the examples; see `Term.gradient`.

        New examples are made first, if they are due.
        """
        self.owed += self.rate * len(images)
        while self.owed >= self.batch:
            self.owed -= self.batch
            self._renew()
        perturbed, truths = {}, []
        for place, (examples, truth) in self.pools.items():
            if len(examples):
                rows = self._draw(len(examples), len(images)).to(truth.device)
                perturbed[place] = examples.index_select(0, rows).t()
                truths.append(truth[rows])
        return self.added(self.of_images(images, labels).gradient, perturbed, truths)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator, the number of examples due, and the pools."""
        return super().state_dict() | {"owed": self.owed, "pools": dict(self.pools)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        super().load_state_dict(state)
        self.owed = state["owed"]
        device = self.images.device
        self.pools = {
            place: (examples.to(device), truth.to(device))
            for place, (examples, truth) in state["pools"].items()
        }

    def _renew(self) -> None:
        """Make new examples for each pool with the network as it is."""
        training = self.network.training
        self.network.eval()
        rows = self._draw(len(self.images), self.batch).to(self.labels.device)
        labels = self.labels[rows]
        passes, logits = forward(self.layers, {0: self.images[rows].flatten(1).t()})
        targets = second_targets(logits.t(), labels)
        for place in self.places():
            self._replace(
                place, *self._adversarial(place, passes[place].values.t().contiguous(), targets, labels)
            )
        self.network.train(training)

    @torch.no_grad()
    def _adversarial(
        self, place: int, outputs: Tensor, targets: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest outputs (m, n) of another class with their labels (m,).

        They are moved as `amplified` says.
        This is quicker than a whole attack, since it makes only a few steps of the attack's exploration.
        Outputs that these steps do not bring to another class are left out.
        In a rectified network that is trained with pools, they are a third of the images.
        Of the first hidden outputs, they are a seventh.
        """
        points, reached = near_examples(self.layers[place:], outputs, targets, self.bounds[place])
        outputs, nearest, labels = outputs[reached], points[reached], labels[reached]
        moved = self.moved(place, outputs.t(), (nearest - outputs).t()).t()
        if not self.amplified:
            near = (nearest - outputs).norm(dim=1) <= self.norms[place]
            moved = where(near, nearest, moved)
        return moved, labels

    def _replace(self, place: int, examples: Tensor, labels: Tensor) -> None:
        """Put examples into a pool, in place of random ones once the pool is full."""
        old, truth = self.pools.get(place, (examples[:0], labels[:0]))
        kept = torch.randperm(len(old), generator=self.generator)[: self.size - len(examples)].to(
            truth.device
        )
        self.pools[place] = torch.cat([old[kept], examples]), torch.cat([truth[kept], labels])

    def _draw(self, among: int, count: int) -> Tensor:
        return torch.randint(among, (count,), generator=self.generator)


KINDS = {"steps": Steps, "noise": Noise}


def term(
    definition: Mapping[str, Any], network: nn.Sequential, images: Tensor, labels: Tensor, seed: int
) -> _Layerwise:
    """Build the term that a definition describes.

    Args:
        definition: The `kind` of the term ("pools", "steps" or "noise"), and the keys of that kind.
        network: A fully connected network.
        images: The training images, (n, ...).
        labels: Their labels, (n,).
        seed: The seed of the term's random draws.
    Returns:
        The term.
    Raises:
        ValueError: If the network is not fully connected, or if there is not one norm for each of its layers.
    """
    options = {key: value for key, value in definition.items() if key != "kind"}
    if definition["kind"] == "pools":
        return Pools(network, seed=seed, images=images, labels=labels, **options)
    return KINDS[definition["kind"]](network, seed=seed, **options)
