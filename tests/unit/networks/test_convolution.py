"""The convolution and pooling by products, against torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d, pad

from blindspots.networks.convolution import Pointwise, UnevenlyPadded, WindowedConvolution, WindowedMaximum

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4}


def both(channels, kernel, pool, dtype=torch.float64):
    """The layers and torch's own, with the same random parameters."""
    torch.manual_seed(0)
    own = nn.Sequential(WindowedConvolution(channels, kernel, pool), WindowedMaximum()).to(dtype)
    plain = nn.Sequential(nn.Conv2d(1, channels, kernel), nn.MaxPool2d(pool)).to(dtype)
    plain[0].load_state_dict(own[0].state_dict())
    return own, plain


def gradients(layers, images, weights):
    """Of a random weighting of the outputs: with respect to the images, the kernels and the biases."""
    images = images.clone().requires_grad_()
    return torch.autograd.grad((layers(images) * weights).sum(), [images, *layers.parameters()])


@given(
    st.sampled_from(list(TOLERANCES)),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(1, 5),
)
def test_values_and_gradients_are_those_of_torch(dtype, channels, kernel, pool, rows, columns, count):
    own, plain = both(channels, kernel, pool, dtype)
    generator = torch.Generator().manual_seed(1)
    smallest = kernel + pool - 1
    images = torch.randn(count, 1, smallest + rows, smallest + columns, dtype=dtype, generator=generator)
    wanted = plain(images)
    close = {"rtol": 0, "atol": TOLERANCES[dtype]}
    torch.testing.assert_close(own(images), wanted, **close)
    weights = torch.randn(wanted.shape, dtype=dtype, generator=generator)
    for found, expected in zip(
        gradients(own, images, weights), gradients(plain, images, weights), strict=True
    ):
        torch.testing.assert_close(found, expected, **close)


def test_the_parted_output_is_the_convolution_without_what_no_window_holds():
    (convolution, _), (plain, _) = both(3, 3, 2)
    images = torch.randn(5, 1, 8, 9, dtype=torch.float64)
    parted = convolution(images)
    assert parted.shape == (5, 3, 3, 2, 3, 2)
    torch.testing.assert_close(parted.reshape(5, 3, 6, 6), plain(images)[..., :6])


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_of_equal_values_the_first_has_the_gradient(pool):
    own, plain = both(2, 2, pool)
    images = torch.ones(1, 1, 7, 8, dtype=torch.float64)
    weights = torch.randn(plain(images).shape, dtype=torch.float64)
    for found, expected in zip(
        gradients(own, images, weights), gradients(plain, images, weights), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_is_no_number_is_not_hidden_by_the_maximum():
    own, plain = both(2, 3, 2)
    images = torch.zeros(2, 1, 9, 9, dtype=torch.float64)
    images[0, 0, 4, 4] = torch.nan
    hidden = plain(images).isnan() & ~own(images).isnan()
    assert not hidden.any()
    assert own(images)[1].isfinite().all()


@pytest.mark.parametrize("layer", [0, 1])
def test_a_second_derivative_is_refused(layer):
    own, _ = both(2, 3, 2)
    x = (
        torch.rand(1, 1, 8, 8, dtype=torch.float64)
        if layer == 0
        else torch.rand(1, 2, 3, 2, 3, 2, dtype=torch.float64)
    )
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(own[layer](x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_parameters_go_by_the_names_of_torch():
    own, plain = both(2, 3, 2)
    assert list(own.state_dict()) == list(plain.state_dict())


def test_of_no_images_there_is_nothing():
    own, plain = both(2, 3, 2)
    none = torch.empty(0, 1, 8, 9, dtype=torch.float64)
    assert own(none).shape == plain(none).shape


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_pointwise_convolution_is_a_convolution(memory_format):
    torch.manual_seed(0)
    layer = Pointwise(5, 3).double()
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    weights = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    wanted = conv2d(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), wanted)
    inputs = [x, layer.weight, layer.bias]
    for found, expected in zip(
        torch.autograd.grad((layer(x) * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@given(
    st.sampled_from([1, 2]),
    st.integers(1, 5),
    st.tuples(st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.booleans(),
)
def test_uneven_padding_is_that_of_a_padded_copy(stride, kernel, fewer, size, depthwise):
    torch.manual_seed(0)
    layer = UnevenlyPadded(
        4, 4, kernel, stride, padding=(2, 1), fewer=fewer, groups=4 if depthwise else 1
    ).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    copy = pad(x, (1 - fewer[1], 1, 2 - fewer[0], 2))
    torch.testing.assert_close(layer(x), conv2d(copy, layer.weight, layer.bias, stride, groups=layer.groups))
