"""Frame bounds of linear maps: λ₋ and λ₊, the lowest and largest singular values (Section 4.3).

A map from n to m variables has min(m, n) singular values.
Those of a circular convolution are those of the small matrices A(ω), one for each frequency ω.
A zero-padded convolution has no such simple form.
`padded_grid` gives a circular convolution that bounds it from above.
`zero_padded` approximates its own norm from below by an iteration.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor, nn
from torch.func import functional_call

# The number of complex numbers in the matrices A(ω) that are computed at once.
# They take 32 MiB, and a few times that with copies.
_CHUNK = 2**21
# The tolerance of svds, which passes its square to ARPACK. That is the relative residual of λ₊².
_TOLERANCE = 1e-3


class Bounds(NamedTuple):
    """The frame bounds of a linear map.

    Attributes:
        lower: λ₋, the lowest singular value.
        upper: λ₊, the largest singular value.
    """

    lower: float
    upper: float


class Norm(NamedTuple):
    """An approximation of the norm of a linear map A, with its error.

    Attributes:
        value: ‖A v‖ for a unit vector v. It is at most ‖A‖, apart from rounding.
        residual: ‖Aᵀu - value v‖ with u = A v / value.
            Some singular value of A is at most this far from `value`.
            In practice it is the largest one.
    """

    value: float
    residual: float


@torch.no_grad()
def fully_connected(weight: Tensor) -> Bounds:
    """Compute the frame bounds of a weight matrix.

    Args:
        weight: The weight matrix, (F, C).
    Returns:
        The frame bounds.
    """
    values = torch.linalg.svdvals(weight.double())
    return Bounds(values.min().item(), values.max().item())


@torch.no_grad()
def convolution(
    weight: Tensor,
    grid: Sequence[int],
    stride: Sequence[int] = (1, 1),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Bounds:
    """Compute the frame bounds of a convolution with circular padding (Section 4.3).

    The transform of the output at ω is A(ω) times that of the input at ω and its s_h s_w - 1 aliases.
    Here s is the stride. The aliases are side by side in the columns of A.
    The division by √(s_h s_w) accounts for the output's smaller grid.
    With groups of channels there is one A(ω) for each group.

    Args:
        weight: The weight, (F, C/groups, kh, kw).
        grid: The size of the grid, (h, w).
        stride: The stride, (s_h, s_w).
        dilation: The dilation along each axis.
        groups: The number of groups of channels.
    Returns:
        The frame bounds.
    Raises:
        ValueError: If the grid's sides are not multiples of the stride.
    """
    if any(side % step for side, step in zip(grid, stride, strict=True)):
        raise ValueError(
            f"a circular convolution with stride {tuple(stride)} needs a grid of multiples, not {tuple(grid)}"
        )
    filters, channels, *taps = weight.shape
    kernel = (
        weight.double().reshape(groups, filters // groups * channels, math.prod(taps)).mT.to(torch.complex128)
    )
    lower, upper = math.inf, 0.0
    for phases in _phases(taps, grid, stride, dilation, most=_CHUNK // (filters * channels)):
        transform = phases.flatten(0, 1) @ kernel  # (groups, frequencies · aliases, F/groups · C/groups)
        transform = transform.view(groups, *phases.shape[:2], filters // groups, channels)
        a = transform.transpose(2, 3).flatten(3) / math.sqrt(math.prod(stride))
        values = torch.linalg.svdvals(a)
        lower, upper = min(lower, values.min().item()), max(upper, values.max().item())
    return Bounds(lower, upper)


def _phases(
    taps: Sequence[int], grid: Sequence[int], stride: Sequence[int], dilation: Sequence[int], most: int
) -> Iterator[Tensor]:
    """Yield exp(-iω·n) for the output's frequencies ω, their aliases and the kernel's places n.

    Each chunk is (frequencies, aliases, kh·kw).
    It has at most `most` pairs of a frequency and an alias, or a single frequency.
    The places n may lie beyond the grid; there the kernel wraps around.
    Frequencies at which A has the same singular values are left out:

    - -ω, because its A is the complex conjugate.
    - All but one frequency along an axis with a single tap of the kernel, because A does not depend on it.
    """
    along_axes = []
    for count, side, step, spread in zip(taps, grid, stride, dilation, strict=True):
        output = side // step
        frequencies = torch.arange(1 if count == 1 else output)
        aliases = frequencies[:, None] + output * torch.arange(step)
        # The exponent is reduced modulo the side in integers, so that it is exact.
        turns = (aliases[:, :, None] * spread * torch.arange(count) % side).double() / side
        along_axes.append(torch.polar(torch.ones_like(turns), -2 * torch.pi * turns))
    rows, columns = along_axes
    columns = columns[: len(columns) // 2 + 1]
    i, j = (
        index.flatten()
        for index in torch.meshgrid(torch.arange(len(rows)), torch.arange(len(columns)), indexing="ij")
    )
    for chunk in torch.arange(len(i)).split(max(1, most // math.prod(stride))):
        both = rows[i[chunk], :, None, :, None] * columns[j[chunk], None, :, None, :]
        yield both.flatten(3).flatten(1, 2)


def padded_grid(layer: nn.Conv2d, image_shape: Sequence[int]) -> tuple[int, int]:
    """Compute the smallest grid on which circular padding is as good as zero padding.

    The grid's sides are multiples of the stride.
    The wider of the two margins must fit beside the image, and serves both ends of the image.
    Put the image among zeros on this grid and apply the circular convolution.
    Its outputs then contain those of the zero-padded convolution, except outputs that saw only padding.
    So the zero-padded map is the circular one between an embedding and a selection.
    Neither of these lengthens a vector, hence ‖zero-padded‖ ≤ λ₊ of the circular convolution.
    The lower bounds have no such order.

    Args:
        layer: The convolution.
        image_shape: The shape of its input, (c, h, w).
    Returns:
        The size of the grid, (h, w).
    """
    sides = zip(image_shape[1:], _margins(layer), layer.stride, strict=True)
    height, width = (step * math.ceil((side + max(margins)) / step) for side, margins, step in sides)
    return height, width


def _margins(layer: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the numbers of rows above and below, and of columns left and right, that a layer pads."""
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    if layer.padding == "same":
        extra = [spread * (taps - 1) for taps, spread in zip(layer.kernel_size, layer.dilation, strict=True)]
        (above, left), (below, right) = ([e // 2 for e in extra], [e - e // 2 for e in extra])
        return (above, below), (left, right)
    return tuple((size, size) for size in layer.padding)


def zero_padded(layer: nn.Conv2d, image_shape: Sequence[int], seed: int) -> Norm:
    """Compute the norm of a convolution as the network applies it, without the bias.

    The layer keeps its own padding, cropping and stride.
    The method is Lanczos' iteration on the map and its adjoint, from a random vector.
    It uses float32 to make the convolutions fast.
    The value and the residual are computed from its last vector in float64.

    Args:
        layer: The convolution.
        image_shape: The shape of its input, (c, h, w).
        seed: The seed of the random vector.
    Returns:
        The norm and its residual.
    """
    single, double = (
        _operator(layer, image_shape, torch.float32),
        _operator(layer, image_shape, torch.float64),
    )
    start = torch.randn(single.shape[1], generator=torch.Generator().manual_seed(seed)).numpy()
    image = single.matvec(start)
    if not image.any():
        return Norm(0.0, 0.0)
    if min(single.shape) == 1:
        # ARPACK needs two dimensions. With rank one, the map and its adjoint give the only singular vector.
        vector = single.rmatvec(image)
    else:
        start = start if single.shape[1] <= single.shape[0] else image
        vector = svds(single, k=1, v0=start, tol=_TOLERANCE, rng=seed)[2][0]
    v = vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64))
    image = double.matvec(v)
    value = np.linalg.norm(image)
    residual = np.linalg.norm(double.rmatvec(image / value) - value * v)
    return Norm(float(value), float(residual))


def _operator(layer: nn.Conv2d, image_shape: Sequence[int], dtype: torch.dtype) -> LinearOperator:
    """Return a layer without its bias as a matrix (outputs, inputs) that is never written out."""
    parameters = {"weight": layer.weight.detach().to(dtype)}
    if layer.bias is not None:
        parameters["bias"] = torch.zeros_like(layer.bias, dtype=dtype)

    def forward(x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x.view(1, *image_shape),)).flatten()

    zeros = torch.zeros(math.prod(image_shape), dtype=dtype, requires_grad=True)
    with torch.enable_grad():
        outputs = forward(zeros)

    def adjoint(u: Tensor) -> Tensor:
        return torch.autograd.grad(outputs, zeros, u, retain_graph=True)[0]

    return LinearOperator(
        shape=(len(outputs), len(zeros)),
        dtype=zeros.detach().numpy().dtype,
        matvec=lambda v: forward(torch.from_numpy(v).to(dtype).flatten()).numpy(),
        rmatvec=lambda u: adjoint(torch.from_numpy(u).to(dtype).flatten()).numpy(),
    )
