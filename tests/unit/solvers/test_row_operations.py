"""What the batched solvers do with rows, against the plain way to say it."""

import math

import pytest
import torch

from blindspots.solvers.row_operations import inside, only_inside, where

POINTS = torch.tensor([[0.0, 0.2, 1.0], [1.0, 0.0, 0.9]], dtype=torch.float64)
VALUES = torch.tensor([[3.0, -4.0, 5.0], [-6.0, 7.0, -8.0]], dtype=torch.float64)


@pytest.mark.parametrize("mask", [[True, True], [True, False], [False, False]])
def test_rows_are_of_the_new_values_where_the_mask_is_true(mask):
    new, old = VALUES.clone(), POINTS.clone()
    assert torch.equal(
        where(torch.tensor(mask), new, old), torch.where(torch.tensor(mask)[:, None], VALUES, POINTS)
    )
    assert torch.equal(new, VALUES)
    assert torch.equal(old, POINTS)


@pytest.mark.parametrize("upper", [1.0, math.inf])
def test_bounds_themselves_are_not_inside(upper):
    expected = ((POINTS > 0.0) & (upper > POINTS)).double()
    assert torch.equal(inside(POINTS, 0.0, upper), expected)
    out = torch.full_like(POINTS, math.nan)
    assert only_inside(VALUES, POINTS, 0.0, upper, out=out) is out
    assert torch.equal(out, expected * VALUES)
