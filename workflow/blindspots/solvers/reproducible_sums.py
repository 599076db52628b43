"""Inner products and norms of rows; rounded, they come out the same in whatever order they are summed.

Processors, GPUs and batches of other sizes add up in other orders. In double precision that changes some 1e-16 of a sum, of
which rounding to single leaves nothing, unless the sum lies that near to the middle between two numbers. It matters where a
network has kinks: there a difference in the last digit leads L-BFGS to another local minimum.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """to_single: whether what was summed is rounded to single precision, in the dtype that it has."""

    to_single: bool

    def rounded(self, values: Tensor) -> Tensor:
        return values.float().to(values.dtype) if self.to_single else values

    def round_(self, values: Tensor) -> Tensor:
        """The same in place, which is quicker for large ones."""
        return values.copy_(values.float()) if self.to_single else values

    def rounding(self, values: Tensor) -> Tensor:
        """What rounding may have changed of them."""
        return torch.finfo(torch.float32 if self.to_single else values.dtype).eps * values.abs()

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """(b, n), (b, n) -> (b,)"""
        return self.rounded(torch.linalg.vecdot(a, b))

    def norm(self, a: Tensor) -> Tensor:
        """(b, n) -> (b,)"""
        return self.rounded(a.norm(dim=1))


AS_THEY_ARE, SINGLE = Sums(to_single=False), Sums(to_single=True)
