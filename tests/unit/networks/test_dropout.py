"""Dropout by few random bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blindspots.networks.dropout import Dropout


@given(st.floats(0, 0.99), st.lists(st.integers(0, 7), min_size=1, max_size=3))
def test_each_value_is_dropped_or_divided_by_the_share_that_is_kept(rate, shape):
    x = 1 + torch.rand(shape, dtype=torch.float64)
    dropped = Dropout(rate).train()(x)
    assert dropped.shape == x.shape
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / (1 - rate), rtol=1e-3, atol=0)


@pytest.mark.parametrize("rate", [0.03, 0.13, 0.5, 0.9])
def test_the_rate_is_that_of_the_definition_and_the_mean_stays(rate):
    torch.manual_seed(0)
    count = 400_000
    dropped = Dropout(rate)(torch.ones(count // 100, 100))
    error = (rate * (1 - rate) / count) ** 0.5
    assert abs((dropped == 0).double().mean().item() - rate) < 4 * error
    assert abs(dropped.double().mean().item() - 1) < 4 * error / (1 - rate)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    zero = (Dropout(0.5)(torch.ones(400_000)) == 0).double() - 0.5
    for lag in (1, 2, 3, 4):  # four masks share a random word
        assert abs((zero[lag:] * zero[:-lag]).mean().item()) < 4 * 0.25 / 400_000**0.5


def test_gradients_have_the_same_mask():
    x = torch.ones(30, 40, requires_grad=True)
    dropped = Dropout(0.5)(x)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)


def test_masks_are_by_torchs_generator_and_in_training_alone():
    layer, x = Dropout(0.5), torch.ones(100)
    torch.manual_seed(1)
    one, other = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), one)
    assert not torch.equal(one, other)
    state = torch.get_rng_state()
    assert layer.eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
