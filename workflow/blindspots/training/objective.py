"""The function that training minimises: a loss over images, of parameters that form one vector."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from blindspots.networks.flattening import flat
from blindspots.solvers.limited_memory import Point
from blindspots.training.record import State


class Objective(ABC):
    """A loss over images as a function of a network's parameters as one vector, (n,).

    Args:
        parameters: The network's parameters, n values in all.
        images: The images, (m, ...).
        each: The function that computes independent parts, such as `map` or `Workers.map`.
    Attributes:
        evaluations: The number of gradients computed so far.
            The gradient of a tenth of the images counts as a tenth.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], images: Tensor, each: Callable = map):
        self.parameters, self.images, self.each = list(parameters), images, each
        self.evaluations = 0.0

    @property
    def values(self) -> Tensor:
        """The current parameters as one vector, (n,)."""
        return flat([parameter.detach() for parameter in self.parameters])

    @torch.no_grad()
    def assign(self, values: Tensor) -> None:
        """Set the parameters.

        Args:
            values: The new values as one vector, (n,).
        """
        for parameter, part in zip(
            self.parameters, values.split([p.numel() for p in self.parameters]), strict=True
        ):
            parameter.copy_(part.view_as(parameter))

    @abstractmethod
    def of_all(self, values: Tensor) -> tuple[float, Tensor]:
        """Compute the loss over all images and its gradient.

        Args:
            values: The parameters, (n,).
        Returns:
            The loss, and its gradient (n,).
        """

    @abstractmethod
    def of_sample(self, rows: Tensor) -> Callable[[Tensor], tuple[float, Tensor]]:
        """Return the loss over some of the images as a function.

        Args:
            rows: The indices of these images.
        Returns:
            A function from the parameters (n,) to the loss over these images and its gradient (n,).
        """

    @abstractmethod
    def state(self, point: Point) -> State:
        """Return the state at the point at which `of_all` was computed last.

        Args:
            point: That point.
        Returns:
            The loss, the gradient (n,) and the error there.
        """

    def _assign(self, values: Tensor, images: Tensor) -> None:
        """Set the parameters for an evaluation over these images, and count its cost."""
        self.assign(values)
        self.evaluations += len(images) / len(self.images)
