"""Adam (Kingma and Ba, 2015, Algorithm 1) with weight decay in the gradient.

The step is the kernel of torch.optim.Adam(fused=True). That class itself imports torch's compiler, which takes a job a
second, and adds half as much again to a step.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_RECOMMENDED = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}  # by the paper


class Adam:
    """Steps of parameters that from now on lie one after the other in memory.

    decay:         the gradient of each parameter gets this multiple of it, for its weight decay.
    learning_rate: of the first step; it falls along half a cosine, to 0 after `steps` of them.
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
        """One step along the gradients of the parameters, which are one vector in their order."""
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
        return {"mean": self.mean, "square": self.square, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.done = state["done"]
