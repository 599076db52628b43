"""What training minimises: a mean over images, of parameters that are one vector, and its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from blindspots.limited_memory import Point
from blindspots.training_record import State

_PARTS = 8  # at least, or a multiple of it, for as many threads,
_SMALLEST = 100  # unless they got smaller than this.
_LARGEST = {"cpu": 1500, "cuda": 10_000}  # On a CPU such a part stays in the cache.


class Objective(ABC):
    """A function of the parameters of a network as one vector, (n,); and what it cost so far.

    each: computes independent pieces of work, as `map` or `Workers.map` does. evaluations: gradients computed so far; that
    of a tenth of the images counts as a tenth.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], images: Tensor, each: Callable = map):
        self.parameters, self.images, self.each = list(parameters), images, each
        self.evaluations = 0.0

    @property
    def values(self) -> Tensor:
        """What the parameters are."""
        return flat([parameter.detach() for parameter in self.parameters])

    @torch.no_grad()
    def assign(self, values: Tensor) -> None:
        """Give the parameters these values."""
        for parameter, part in zip(self.parameters, values.split([p.numel() for p in self.parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))

    @abstractmethod
    def of_all(self, values: Tensor) -> tuple[float, Tensor]:
        """The loss over all images, and its gradient."""

    @abstractmethod
    def of_sample(self, rows: Tensor) -> Callable[[Tensor], tuple[float, Tensor]]:
        """The same over these images instead of all."""

    @abstractmethod
    def state(self, point: Point) -> State:
        """At the point at which `of_all` was computed last."""

    def _assign(self, values: Tensor, images: Tensor) -> None:
        """Begin an evaluation over these images."""
        self.assign(values)
        self.evaluations += len(images) / len(self.images)


def in_parts(values: Tensor) -> tuple[Tensor, ...]:
    """Equal parts of (b, ...) values but for the last, each of which is the work of one thread.

    They depend on b and the kind of device alone, and sums over them are made in their order: so these are the same for any
    number of threads.
    """
    largest = _LARGEST[values.device.type]
    parts = _PARTS * -(-len(values) // (_PARTS * largest))
    return values.split(min(largest, max(_SMALLEST, -(-len(values) // parts))))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of all."""
    return torch.cat([tensor.flatten() for tensor in tensors])
