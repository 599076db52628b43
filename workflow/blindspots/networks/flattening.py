"""Concatenation of tensors into one vector."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Flatten tensors and concatenate them.

    Args:
        tensors: The tensors, of any shapes. There is at least one.
    Returns:
        The vector of all their elements, (n,), in the order of the tensors.
    """
    return torch.cat([tensor.flatten() for tensor in tensors])
