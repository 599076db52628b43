"""Adam (Kingma and Ba, 2015, Algorithm 1) with weight decay in the gradient.

The step is the kernel of torch.optim.Adam(fused=True).
That class itself imports torch's compiler, which takes each job about a second.
Its step also takes about one and a half times as long.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_RECOMMENDED = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}  # the values that the Adam paper recommends


class Adam:
    """The Adam optimiser with a learning rate that falls along half a cosine to 0.

    The constructor moves all parameters into one vector, so that they are contiguous in memory.

    Args:
        parameters: The parameters to train, n values in all.
        decay: The decay rate of each parameter. The parameter times this rate is added to its gradient.
        learning_rate: The learning rate of the first step.
        steps: The number of steps after which the learning rate is 0.
    Attributes:
        values: The parameters as one vector, (n,). The parameters are views of it.
        decay: The decay rate of each value, (n,).
        mean: The running mean of the gradient, (n,).
        square: The running mean of the squared gradient, (n,).
        done: The number of steps that were made so far.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], decay: Sequence[float], learning_rate: float, steps: int
    ):
        self.learning_rate, self.steps, self.done = learning_rate, steps, 0
        with torch.no_grad():
            self.values = torch.cat([parameter.flatten() for parameter in parameters])
        self.decay = torch.cat(
            [torch.full_like(p.detach().flatten(), rate) for p, rate in zip(parameters, decay, strict=True)]
        )
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        for parameter, part in zip(
            parameters, self.values.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.data = part.view_as(parameter)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Make one step along a gradient.

        Args:
            gradient: The gradients of all parameters in their order, as one vector (n,). It is overwritten.
        """
        rate = self.learning_rate * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        self.done += 1
        torch._fused_adam_(
            [self.values],
            [gradient.addcmul_(self.decay, self.values)],
            [self.mean],
            [self.square],
            [],
            [torch.full((), self.done, dtype=torch.float32, device=self.values.device)],
            lr=rate,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            **_RECOMMENDED,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state: the running means and the number of steps made.

        The parameters are not part of it.
        """
        return {"mean": self.mean, "square": self.square, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        Args:
            state: The running means, (n,) each, and the number of steps made.
        """
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.done = state["done"]
