"""What training minimises: a mean over images, of parameters that are one vector, and its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from blindspots.networks.flattening import flat
from blindspots.solvers.limited_memory import Point
from blindspots.training.record import State


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
        for parameter, part in zip(
            self.parameters, values.split([p.numel() for p in self.parameters]), strict=True
        ):
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
