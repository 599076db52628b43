"""Operations on the rows of a batch, for the batched solvers.

They are faster on a CPU than masks of every element, at which torch is slow.
"""

import torch
from torch import Tensor


def where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Select each row from one of two batches.

    In most calls all rows come from the same batch.

    Args:
        mask: Whether a row comes from `new`, (b,), bool.
        new: The rows where the mask is true, (b, n).
        old: The rows where the mask is false, (b, n).
    Returns:
        The selected rows, (b, n). This is `new` itself if the mask is true everywhere.
    """
    if mask.all():
        return new
    kept = (~mask).nonzero().squeeze(1)
    result = new.clone()
    result[kept] = old[kept]
    return result


def inside(points: Tensor, lower: float, upper: float) -> Tensor:
    """Mark the variables that are strictly between their bounds.

    Args:
        points: The points, (b, n), in the box.
        lower: The lower bound of every variable.
        upper: The upper bound of every variable.
    Returns:
        1 for each variable strictly between its bounds and 0 for each variable at a bound, (b, n).
        The numbers have the dtype of the points.
    """
    return (points - lower).mul_(upper - points).sign_()


def only_inside(values: Tensor, points: Tensor, lower: float, upper: float, out: Tensor) -> Tensor:
    """Set the values of all variables that are not strictly between their bounds to 0.

    This is the gradient of clipping. It takes one pass over the values.

    Args:
        values: One value for each variable, (b, n).
        points: The variables, (b, n).
        lower: The lower bound of every variable.
        upper: The upper bound of every variable.
        out: The array that the result is written to, (b, n).
    Returns:
        `out`, (b, n).
    """
    return torch.ops.aten.hardtanh_backward.grad_input(values, points, lower, upper, grad_input=out)
