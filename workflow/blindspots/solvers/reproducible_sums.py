"""Inner products and norms of rows, which do not depend on the order of summation if they are rounded.

The order of summation differs between processors, GPUs and batch sizes.
In double precision the order changes a sum by a relative difference of about 1e-16.
Rounding to single precision removes this difference.
The exception is a sum that lies as near as that to the midpoint between two single-precision numbers.
The difference matters where a network has kinks.
There a difference in the last digit leads L-BFGS to another local minimum.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """Sums over rows, with or without rounding.

    Attributes:
        to_single: Whether sums are rounded to single precision. A rounded sum keeps its dtype.
    """

    to_single: bool

    def rounded(self, values: Tensor) -> Tensor:
        """Round values to single precision if `to_single` is true.

        Args:
            values: The values, of any shape.
        Returns:
            The rounded values in the same shape and dtype, or `values` itself without rounding.
        """
        return values.float().to(values.dtype) if self.to_single else values

    def round_(self, values: Tensor) -> Tensor:
        """Round values in place, which is faster than `rounded` for large arrays.

        Args:
            values: The values, of any shape. They are overwritten.
        Returns:
            `values`.
        """
        return values.copy_(values.float()) if self.to_single else values

    def rounding(self, values: Tensor) -> Tensor:
        """Bound the rounding errors of values.

        Args:
            values: The values, of any shape.
        Returns:
            The largest changes that rounding can have made, in the shape of the values.
        """
        return torch.finfo(torch.float32 if self.to_single else values.dtype).eps * values.abs()

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the inner product of each pair of rows.

        Args:
            a: The first rows, (b, n).
            b: The second rows, (b, n).
        Returns:
            The inner products, (b,), rounded if `to_single` is true.
        """
        return self.rounded(torch.linalg.vecdot(a, b))

    def norm(self, a: Tensor) -> Tensor:
        """Compute the Euclidean norm of each row.

        Args:
            a: The rows, (b, n).
        Returns:
            The norms, (b,), rounded if `to_single` is true.
        """
        return self.rounded(a.norm(dim=1))


AS_THEY_ARE, SINGLE = Sums(to_single=False), Sums(to_single=True)
