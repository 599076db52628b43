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
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blindspots.problem import Problem
from blindspots.rows import where
from blindspots.sqp import SQP, explore
from blindspots.targets import second_targets

_RANGES = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0), nn.ReLU: (0.0, float("inf"))}
_PIXELS = (0.0, 1.0)
_QUICK = SQP(exploration=4, noise=0.0, momentum=0.0)  # the pools' examples serve for a while only
_MARGIN = 4e-3  # logits; the exploration goes ten times as far beyond the border, to fall short less often
_NO_DIRECTION = 1e-12  # the length below which a direction leads less far than its norm


class Stage(NamedTuple):
    """The part of a network from one output on to the next, and the range of the output that it starts from."""

    layers: nn.Sequential
    bounds: tuple[float, float]


def stages(network: nn.Sequential) -> list[Stage]:
    """The network cut at its activations: applied one after the other they are the network itself."""
    activations = [place for place, layer in enumerate(network) if type(layer) in _RANGES]
    bounds = [_PIXELS, *(_RANGES[type(network[place])] for place in activations)]
    cuts = pairwise([0, *(place + 1 for place in activations), len(network)])
    return [Stage(network[a:b], c) for (a, b), c in zip(cuts, bounds, strict=True)]


class _Layerwise:
    """A network with the norm of what is perturbed at each of its stages' outputs, 0 for none.

    Raises ValueError if there is not one norm for the input and each hidden output.
    """

    def __init__(self, network: nn.Sequential, norms: Sequence[float], weight: float, seed: int):
        self.stages = stages(network)
        if len(norms) != len(self.stages):
            raise ValueError(f"{len(norms)} norms for the input and {len(self.stages) - 1} hidden outputs: give one each")
        self.norms, self.weight = norms, weight
        self.generator = torch.Generator().manual_seed(seed)

    def places(self) -> Iterator[int]:
        """The stages whose output, or input for the first, is perturbed."""
        return (place for place, norm in enumerate(self.norms) if norm)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """The images (b, ...), the output of each stage that others follow (b, units), and the logits (b, k)."""
        found = [images]
        for stage in self.stages:
            found.append(stage.layers(found[-1]))
        return found

    def logits(self, outputs: Sequence[tuple[int, Tensor]]) -> Tensor:
        """The logits (m, k) of outputs (b, ...) of places, from the lowest place up, in the order that they are given.

        Those of lower places join those of higher ones on their way, as a layer is quicker with all of them at once.
        """
        joined: list[Tensor] = []
        for place, stage in enumerate(self.stages):
            joined += [values for start, values in outputs if start == place]
            if joined:
                joined = [stage.layers(torch.cat(joined) if len(joined) > 1 else joined[0])]
        return joined[0]

    def added(self, perturbed: Sequence[tuple[int, Tensor]], labels: Tensor) -> Tensor:
        """The term of perturbed outputs (b, ...) of places, from the lowest place up, of images with these labels (b,)."""
        several = labels.repeat(len(perturbed))
        return self.weight * len(perturbed) * cross_entropy(self.logits(perturbed), several)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Steps(_Layerwise):
    """A step of fixed norm along the gradient that the minibatch's loss has at each output, within the output's range."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.outputs(images.detach().requires_grad_())
        loss = cross_entropy(outputs[-1], labels)
        places = list(self.places())
        gradients = torch.autograd.grad(loss, [outputs[place] for place in places], retain_graph=True)
        moved = [
            (place, _moved(self.stages[place], outputs[place], gradient, self.norms[place]))
            for place, gradient in zip(places, gradients, strict=True)
        ]
        return loss + self.added(moved, labels)


class Noise(_Layerwise):
    """A step of the same norm in a random direction, which is Gaussian noise of that size."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.outputs(images)
        moved = []
        for place in self.places():
            output = outputs[place]
            direction = torch.randn(output.shape, generator=self.generator, dtype=output.dtype).to(output.device)
            moved.append((place, _moved(self.stages[place], output, direction, self.norms[place])))
        return cross_entropy(outputs[-1], labels) + self.added(moved, labels)


def _moved(stage: Stage, output: Tensor, direction: Tensor, norm: float) -> Tensor:
    """An output (b, ...) moved by a norm in the directions (b, ...), within its range."""
    r = direction.flatten(1)
    factor = norm / r.norm(dim=1, keepdim=True).clamp_min(_NO_DIRECTION)
    return torch.addcmul(output.detach().flatten(1), r, factor).clamp_(*stage.bounds).view_as(output)


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

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        self.owed += self.rate * len(images)
        while self.owed >= self.batch:
            self.owed -= self.batch
            self._renew()
        outputs, truths = [(0, images)], [labels]
        for place, (examples, truth) in self.pools.items():
            if len(examples):
                rows = self._draw(len(examples), len(images)).to(truth.device)
                outputs.append((place, examples.index_select(0, rows)))
                truths.append(truth[rows])
        losses = cross_entropy(self.logits(outputs), torch.cat(truths), reduction="none").view(len(outputs), -1).mean(1)
        return losses[0] + self.weight * losses[1:].sum()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"owed": self.owed, "pools": dict(self.pools)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.owed = state["owed"]
        device = self.images.device
        self.pools = {place: (examples.to(device), truth.to(device)) for place, (examples, truth) in state["pools"].items()}

    def _renew(self) -> None:
        """Make new examples for each pool, by the network as it is."""
        training = self.network.training
        self.network.eval()
        rows = self._draw(len(self.images), self.batch).to(self.labels.device)
        labels = self.labels[rows]
        with torch.no_grad():
            outputs = self.outputs(self.images[rows])
        for place in self.places():
            self._replace(place, *self._adversarial(place, outputs[place], outputs[-1], labels))
        self.network.train(training)

    @torch.no_grad()
    def _adversarial(self, place: int, output: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest outputs (m, ...) of another class, or those at the norm in their directions, with their labels (m,).

        Quicker than a whole attack: the attack's exploration alone, by a few steps. What they do not reach is left out: in
        a rectified network that is trained so, a third of the images and a seventh of the first hidden outputs.
        """
        above = nn.Sequential(*(stage.layers for stage in self.stages[place:]))
        problem = Problem(above, output, second_targets(logits, labels), self.stages[place].bounds, _MARGIN)
        nowhere = torch.zeros_like(problem.rows, dtype=torch.bool)  # a target is never what the network says of it now
        points, reached = explore(problem, problem.x, nowhere, _QUICK)
        output, nearest, labels = (values[reached] for values in (output, problem.images(points), labels))
        moved = _moved(self.stages[place], output, nearest - output, self.norms[place])
        if not self.amplified:
            near = (nearest - output).flatten(1).norm(dim=1) <= self.norms[place]
            moved = where(near, nearest, moved)
        return moved, labels

    def _replace(self, place: int, examples: Tensor, labels: Tensor) -> None:
        """Put examples into a pool: beside the others until it is full, then in the place of random ones."""
        old, truth = self.pools.get(place, (examples[:0], labels[:0]))
        kept = torch.randperm(len(old), generator=self.generator)[: self.size - len(examples)].to(truth.device)
        self.pools[place] = torch.cat([old[kept], examples]), torch.cat([truth[kept], labels])

    def _draw(self, among: int, count: int) -> Tensor:
        return torch.randint(among, (count,), generator=self.generator)


KINDS = {"steps": Steps, "noise": Noise}


def term(definition: Mapping[str, Any], network: nn.Sequential, images: Tensor, labels: Tensor, seed: int) -> _Layerwise:
    """The term of a definition: `kind`, and that kind's own keys. images (n, ...) and labels (n,) are those trained on."""
    options = {key: value for key, value in definition.items() if key != "kind"}
    if definition["kind"] == "pools":
        return Pools(network, seed=seed, images=images, labels=labels, **options)
    return KINDS[definition["kind"]](network, seed=seed, **options)
