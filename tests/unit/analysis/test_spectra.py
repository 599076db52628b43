"""Frame bounds of linear maps, against the singular values of the matrices written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

from blindspots.analysis import spectra
from blindspots.analysis.spectra import Bounds, convolution, fully_connected, padded_grid, zero_padded

PAIRS = {"kernel": 11, "stride": 4, "dilation": 3, "periods": 3}
pairs = {name: st.tuples(st.integers(1, most), st.integers(1, most)) for name, most in PAIRS.items()}
channels = {
    "groups": st.integers(1, 3),
    "inputs": st.integers(1, 2),
    "outputs": st.integers(1, 3),
}  # of each group


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_singular_values(values, columns):
    """A matrix (len(values), columns) that has these."""
    rows = len(values)
    left, right = (torch.linalg.qr(random(size, rows, seed=size)).Q for size in (rows, columns))
    return (left * values) @ right.mT


def written_out(map_, shape):
    """The matrix (outputs, inputs) of a linear map of images of a shape."""
    return torch.stack(
        [map_(one.view(shape)).flatten() for one in torch.eye(math.prod(shape), dtype=torch.float64)], dim=1
    )


def circular(weight, grid, stride, dilation, groups):
    """The matrix of a circular convolution, by adding up shifted images."""
    filters, taps = len(weight), weight.shape[2:]
    kernels = weight.view(groups, filters // groups, *weight.shape[1:])

    def map_(image):
        total = 0
        for place in np.ndindex(*taps):
            rows, columns = (
                (torch.arange(0, side, step) + spread * tap) % side
                for side, step, spread, tap in zip(grid, stride, dilation, place, strict=True)
            )
            seen = image[:, rows][:, :, columns].view(groups, -1, len(rows), len(columns))
            total = total + torch.einsum("gfc,gcij->gfij", kernels[..., place[0], place[1]], seen)
        return total

    return written_out(map_, (groups * weight.shape[1], *grid))


def assert_bounds(bounds, matrix):
    values = torch.linalg.svdvals(matrix)
    assert bounds.upper == pytest.approx(values[0].item(), rel=1e-9)
    assert bounds.lower == pytest.approx(values[-1].item(), rel=1e-5, abs=1e-13 * bounds.upper)


def layer_of(kernel, stride=1, padding=0, dilation=1, groups=1, inputs=1, outputs=1, seed=0, mode="zeros"):
    layer = nn.Conv2d(
        groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups, padding_mode=mode
    )
    layer.weight.data = random(*layer.weight.shape, seed=seed)
    return layer.double().requires_grad_(False)


def matrix_of(layer, image_shape):
    zero = torch.zeros(1, *image_shape, dtype=torch.float64)
    return written_out(lambda image: layer(image[None]) - layer(zero), image_shape)


@pytest.mark.parametrize(("rows", "columns"), [(30, 30), (20, 50), (1, 7)])
@pytest.mark.parametrize("lowest", [1.0, 1e-4, 1e-6, 1e-9])
def test_a_matrix_has_the_bounds_that_it_was_made_with(rows, columns, lowest):
    values = torch.logspace(math.log10(lowest), math.log10(4), rows, dtype=torch.float64)
    matrix = with_singular_values(values, columns)
    for either in (matrix, matrix.mT):
        bounds = fully_connected(either)
        assert bounds.upper == pytest.approx(values.max().item(), rel=1e-12)
        assert bounds.lower == pytest.approx(values.min().item(), rel=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(20, 20), (20, 30), (30, 20)])
def test_a_singular_matrix_has_the_lower_bound_0_but_for_rounding(rows, columns):
    matrix = random(rows, 5) @ random(5, columns)
    bounds = fully_connected(matrix)
    assert bounds.lower <= 1e-14 * bounds.upper
    assert fully_connected(0 * matrix) == Bounds(0.0, 0.0)


def test_single_precision_weights_are_taken_in_double():
    weight = with_singular_values(torch.tensor([1.0, 1e-4, 1e-5], dtype=torch.float64), 8).float()
    assert_bounds(fully_connected(weight), weight.double())
    assert_bounds(convolution(weight[:, :, None, None], (1, 1)), weight.double())


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), **pairs, **channels)
@example(
    seed=0, kernel=(11, 11), stride=(4, 4), dilation=(1, 1), periods=(3, 3), groups=1, inputs=2, outputs=3
)
@example(
    seed=0, kernel=(11, 5), stride=(1, 1), dilation=(2, 3), periods=(3, 2), groups=2, inputs=1, outputs=1
)  # wraps
@example(
    seed=0, kernel=(3, 3), stride=(2, 2), dilation=(1, 1), periods=(3, 2), groups=3, inputs=1, outputs=1
)  # depthwise
@example(seed=0, kernel=(1, 3), stride=(2, 1), dilation=(1, 1), periods=(2, 3), groups=1, inputs=2, outputs=1)
def test_circular_convolutions_have_the_bounds_of_their_matrix(
    seed, kernel, stride, dilation, periods, groups, inputs, outputs
):
    grid = tuple(step * count for step, count in zip(stride, periods, strict=True))
    weight = random(groups * outputs, inputs, *kernel, seed=seed)
    assert_bounds(
        convolution(weight, grid, stride, dilation, groups), circular(weight, grid, stride, dilation, groups)
    )


def test_one_weak_and_one_strong_group_are_the_lower_and_the_upper_bound():
    weight = random(4, 2, 3, 3)
    weight[:2] *= 100
    strong, weak = convolution(weight[:2], (6, 6)), convolution(weight[2:], (6, 6))
    both = convolution(weight, (6, 6), groups=2)
    assert both == pytest.approx((weak.lower, strong.upper), rel=1e-12)


@pytest.mark.parametrize(("chunk", "most"), [(1, 12), (40, 36), (500, 36 * 12)])
def test_chunks_of_frequencies_come_to_the_same_and_keep_to_their_size(monkeypatch, chunk, most):
    weight = random(3, 2, 5, 3)  # 12 numbers a frequency, 36 frequencies
    wanted = convolution(weight, (12, 10), (2, 1))
    sizes, values = [], torch.linalg.svdvals
    monkeypatch.setattr(spectra, "_CHUNK", chunk)
    monkeypatch.setattr(
        torch.linalg, "svdvals", lambda matrices: (sizes.append(matrices.numel()), values(matrices))[1]
    )
    assert convolution(weight, (12, 10), (2, 1)) == pytest.approx(wanted, rel=1e-12)
    assert (max(sizes), sum(sizes)) == (most, 36 * 12)


def test_a_single_tap_needs_one_frequency_however_large_the_grid():
    weight = random(6, 4)
    assert_bounds(convolution(weight[:, :, None, None], (10**5, 10**5)), weight)


@pytest.mark.parametrize(("grid", "stride"), [((7, 8), (2, 2)), ((8, 7), (2, 2)), ((8, 8), (1, 3))])
def test_a_grid_of_no_multiples_is_refused(grid, stride):
    with pytest.raises(
        ValueError, match=r"^a circular convolution with stride .* needs a grid of multiples, not .*$"
    ):
        convolution(random(1, 1, 3, 3), grid, stride)


margins = st.one_of(st.tuples(st.integers(0, 6), st.integers(0, 6)), st.sampled_from(["same", "valid"]))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    kernel=pairs["kernel"],
    stride=pairs["stride"],
    dilation=pairs["dilation"],
    padding=margins,
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    **channels,
)
@example(
    seed=0,
    kernel=(11, 11),
    stride=(4, 4),
    dilation=(1, 1),
    padding=(2, 2),
    sides=(15, 15),
    groups=1,
    inputs=2,
    outputs=3,
)
@example(
    seed=1,
    kernel=(4, 4),
    stride=(1, 1),
    dilation=(2, 1),
    padding="same",
    sides=(5, 6),
    groups=2,
    inputs=1,
    outputs=2,
)
@example(
    seed=2,
    kernel=(1, 1),
    stride=(1, 1),
    dilation=(1, 1),
    padding=(6, 6),
    sides=(2, 3),
    groups=1,
    inputs=2,
    outputs=2,
)
def test_zero_padded_convolutions_have_the_norm_of_their_matrix_and_the_circular_bound_above(
    seed, kernel, stride, dilation, padding, sides, groups, inputs, outputs
):
    if padding == "same":
        stride = (1, 1)
    margin = (0, 0) if padding == "valid" else padding
    if padding != "same":
        assume(
            all(
                side + 2 * m > spread * (taps - 1)
                for side, m, spread, taps in zip(sides, margin, dilation, kernel, strict=True)
            )
        )
    layer = layer_of(kernel, stride, padding, dilation, groups, inputs, outputs, seed)
    image_shape = (groups * inputs, *sides)
    wanted = torch.linalg.matrix_norm(matrix_of(layer, image_shape), 2).item()
    norm = zero_padded(layer, image_shape, seed)
    assert norm.value == pytest.approx(wanted, rel=1e-6)
    assert norm.value <= wanted * (1 + 1e-12)
    assert norm.residual <= 1e-3 * wanted
    upper = convolution(layer.weight, padded_grid(layer, image_shape), stride, dilation, groups).upper
    assert upper >= wanted * (1 - 1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "sides", "grid"),
    [
        (11, 4, 2, (224, 224), (228, 228)),  # 226, and the stride's next multiple
        (3, 1, 1, (13, 10), (14, 11)),
        (3, 2, 0, (13, 10), (14, 10)),
        (4, 1, "same", (5, 5), (7, 7)),  # one before and two after
        (4, 1, "valid", (5, 5), (5, 5)),
        ((3, 5), (2, 1), (1, 2), (7, 7), (8, 9)),
    ],
)
def test_the_grid_has_the_wider_margin_once_and_whole_strides(kernel, stride, padding, sides, grid):
    assert padded_grid(layer_of(kernel, stride, padding), (1, *sides)) == grid


def test_on_a_smaller_grid_the_circular_convolution_would_be_no_bound():
    # Only neighbours in the same row cancel; on a grid that is the image itself, every pixel has two.
    layer = layer_of((1, 3), padding=(0, 1))
    layer.weight[:] = torch.tensor([1.0, 0.0, -1.0])
    wanted = torch.linalg.matrix_norm(matrix_of(layer, (1, 1, 2)), 2).item()
    assert convolution(layer.weight, (1, 2)).upper < 0.1 < wanted
    assert convolution(layer.weight, padded_grid(layer, (1, 1, 2))).upper >= wanted


def test_what_is_left_over_by_the_iteration_bounds_its_error(monkeypatch):
    monkeypatch.setattr(spectra, "_TOLERANCE", 0.9)
    layer = layer_of(3, padding=1, inputs=2, outputs=3)
    values = torch.linalg.svdvals(matrix_of(layer, (2, 12, 12)))
    norm = zero_padded(layer, (2, 12, 12), seed=0)
    assert norm.residual > 1e-6
    assert (values - norm.value).abs().min() <= norm.residual
    assert norm.value <= values[0]


def test_the_norm_depends_on_the_seed_alone_and_leaves_the_layer_alone():
    layer = layer_of(3, padding=1, inputs=2, outputs=3).float()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    once = zero_padded(layer, (2, 9, 9), seed=1)
    torch.manual_seed(5)
    assert zero_padded(layer, (2, 9, 9), seed=1) == once
    assert zero_padded(layer, (2, 9, 9), seed=2) == pytest.approx(once, rel=1e-5, abs=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_convolution_that_sees_nothing_has_norm_0():
    layer = layer_of(3, padding=1)
    layer.weight[0, 0, 1, 1] = 0  # all else falls on the padding of a single pixel
    assert zero_padded(layer, (1, 1, 1), seed=0) == (0, 0)
    layer.weight.zero_()
    assert zero_padded(layer, (1, 6, 6), seed=0) == (0, 0)


@pytest.mark.parametrize("kind", ["identity", "orthogonal", "rank one", "well-conditioned"])
@pytest.mark.parametrize("seed", range(5))
def test_maps_on_which_iterations_go_wrong_have_their_bounds(kind, seed):
    drawn = np.random.default_rng(seed).standard_normal((6, 6))
    matrix = {
        "identity": np.eye(6),
        "orthogonal": np.linalg.qr(drawn)[0],
        "rank one": np.outer(drawn[0], drawn[1]),
        "well-conditioned": np.eye(6) + 1e-3 * drawn,
    }[kind]
    values = np.linalg.svd(matrix, compute_uv=False)
    layer = nn.Conv2d(6, 6, 1, bias=False).double()
    layer.weight.data = torch.from_numpy(matrix)[:, :, None, None]
    close = {"rel": 1e-6, "abs": 1e-7 * values.max()}
    assert spectra.fully_connected(torch.from_numpy(matrix)) == pytest.approx(
        (values.min(), values.max()), **close
    )
    assert spectra.convolution(layer.weight, (3, 4)) == pytest.approx((values.min(), values.max()), **close)
    assert spectra.zero_padded(layer, (6, 3, 4), seed).value == pytest.approx(values.max(), rel=2e-3)
