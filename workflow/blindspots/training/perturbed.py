"""Training with perturbed outputs of layers (the paper's Section 4.2, before its tables), and what to compare it with.

"A subtle, but essential detail is that adversarial examples are generated for each layer output and are used to train all
the layers above." A layer's output is here the input or what an activation returns. Each term below adds to a minibatch's
loss, for every such output h that has a norm, the cross-entropy of the layers above it at perturbed outputs h + r:

- `Pools`     r to the nearest h + r of another class, from pools that are renewed all the time: the paper's scheme;
- `Steps`     r of a fixed norm, along the loss's gradient at h;
- `Noise`     r of the same norm in a random direction.

The perturbed outputs are constants: nothing below them is trained by them.
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
_NO_DIRECTION = 1e-12  # the length below which a direction leads less far than its norm


class _Layerwise:
    """A network with the norm of what is perturbed at what enters each of its layers, 0 for none.

    Raises ValueError if the network is not fully connected, or if there is not one norm for each of its layers.
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
        """The layers at which what enters is perturbed."""
        return (place for place, norm in enumerate(self.norms) if norm)

    def of_images(self, images: Tensor, labels: Tensor, to_first: bool = False) -> Backpropagated:
        """The gradient of the images' mean cross-entropy, and what it was computed from."""
        return backpropagated(self.layers, {0: images.flatten(1).t()}, labels, 1 / len(labels), to_first)

    def added(self, to: Tensor, perturbed: Mapping[int, Tensor], labels: Sequence[Tensor]) -> Tensor:
        """A gradient, to which that of perturbed outputs (n, b), by their places, with their labels (b,) is added in place.

        It is of the layers from the lowest of these places up.
        """
        if perturbed:
            above = backpropagated(
                self.layers, perturbed, torch.cat(labels), self.weight / len(labels[0])
            ).gradient
            to[-len(above) :] += above
        return to

    def moved(self, place: int, outputs: Tensor, directions: Tensor) -> Tensor:
        """Outputs (n, b) moved by the place's norm in the directions (n, b), within their range."""
        factors = self.norms[place] / directions.norm(dim=0).clamp_min(_NO_DIRECTION)
        return torch.addcmul(outputs, directions, factors).clamp_(*self.bounds[place])

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Steps(_Layerwise):
    """A step of fixed norm along the gradient that the minibatch's loss has at each output, within the output's range."""

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        plain = self.of_images(images, labels, to_first=self.norms[0] > 0)
        moved = {
            place: self.moved(place, plain.passes[place].values, plain.slopes[place])
            for place in self.places()
        }
        return self.added(plain.gradient, moved, [labels] * len(moved))


class Noise(_Layerwise):
    """A step of the same norm in a random direction, which is Gaussian noise of that size."""

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        plain = self.of_images(images, labels)
        outputs = {place: plain.passes[place].values for place in self.places()}
        moved = {
            place: self.moved(place, output, self._directions(output)) for place, output in outputs.items()
        }
        return self.added(plain.gradient, moved, [labels] * len(moved))

    def _directions(self, like: Tensor) -> Tensor:
        return torch.randn(like.t().shape, generator=self.generator, dtype=like.dtype).to(like.device).t()


class Pools(_Layerwise):
    """The paper's scheme: a pool of adversarial examples for each output, a random part of which is replaced all the time.

    An example is the nearest that the attack finds to the output of a random training image, of the most likely other class.
    Every minibatch trains with as many examples of each pool as it has images, drawn at random, under the labels of the
    images that they come from.

    amplified: each is brought to the norm's distance, in its own direction; or only back to it if it is farther.
    size:      examples in each pool; it grows to this by what is made.
    replaced:  how many of each are made anew in a pass over the images, as a share of the size.
    batch:     examples made at a time.
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
        self.rate = replaced * size / len(images)  # examples to be made for an image of training
        self.owed = 0.0
        self.pools: dict[int, tuple[Tensor, Tensor]] = {}

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
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
        return super().state_dict() | {"owed": self.owed, "pools": dict(self.pools)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.owed = state["owed"]
        device = self.images.device
        self.pools = {
            place: (examples.to(device), truth.to(device))
            for place, (examples, truth) in state["pools"].items()
        }

    def _renew(self) -> None:
        """Make new examples for each pool, by the network as it is."""
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
        """The nearest outputs (m, n) of another class, or those at the norm in their directions, with their labels (m,).

        Quicker than a whole attack: the attack's exploration alone, by a few steps. What they do not reach is left out: in
        a rectified network that is trained so, a third of the images and a seventh of the first hidden outputs.
        """
        points, reached = near_examples(self.layers[place:], outputs, targets, self.bounds[place])
        outputs, nearest, labels = outputs[reached], points[reached], labels[reached]
        moved = self.moved(place, outputs.t(), (nearest - outputs).t()).t()
        if not self.amplified:
            near = (nearest - outputs).norm(dim=1) <= self.norms[place]
            moved = where(near, nearest, moved)
        return moved, labels

    def _replace(self, place: int, examples: Tensor, labels: Tensor) -> None:
        """Put examples into a pool: beside the others until it is full, then in the place of random ones."""
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
    """The term of a definition: `kind`, and that kind's own keys. images (n, ...) and labels (n,) are those trained on."""
    options = {key: value for key, value in definition.items() if key != "kind"}
    if definition["kind"] == "pools":
        return Pools(network, seed=seed, images=images, labels=labels, **options)
    return KINDS[definition["kind"]](network, seed=seed, **options)
