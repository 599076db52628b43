"""Many tensors as one vector."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of all."""
    return torch.cat([tensor.flatten() for tensor in tensors])
