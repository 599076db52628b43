"""Convolutions that are faster on a CPU than nn.Conv2d, mainly for networks in evaluation mode.

One of them is for images of one channel, with max pooling after the convolution.
Each window of the pooling depends on one patch of the image.
The convolution of a patch is a product with a matrix, which is the same for all patches.
The images are the last axis in memory.
Patches are therefore copied, and windows compared, in long contiguous runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, linear, max_pool2d, pad


class WindowedConvolution(nn.Conv2d):
    """nn.Conv2d with one input channel, whose output is divided into the windows of the pooling that follows.

    The output leaves out rows and columns that do not fill a window.
    With each axis of windows merged with the axis after it, it equals the output of nn.Conv2d.
    A second derivative is not available. Its computation raises RuntimeError.

    Args:
        channels: The number of output channels.
        kernel: The height and width of the kernel, in pixels.
        window: The height and width of a pooling window, in pixels.
    Attributes:
        window: The height and width of a pooling window, in pixels.
        side: The height and width of the patch of the image that a window depends on, in pixels.
        places: Which pixel of a patch each tap of the kernel multiplies for each output of a window,
            (window², kernel², side²), bool.
    """

    def __init__(self, channels: int, kernel: int, window: int):
        super().__init__(1, channels, kernel)
        self.window, self.side = window, window + kernel - 1
        taps = torch.eye(kernel**2).view(-1, 1, kernel, kernel)
        pixels = torch.eye(self.side**2).view(-1, 1, self.side, self.side)
        # The convolution of images with one pixel of 1 shows which tap of the kernel multiplies which pixel.
        places = conv2d(pixels, taps).flatten(2).permute(2, 1, 0).bool().contiguous()
        self.register_buffer("places", places, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve images.

        Args:
            images: The images, (b, 1, height, width).
        Returns:
            The outputs in windows, (b, channels, rows, window, columns, window).
        """
        count = [(size - self.side) // self.window + 1 for size in images.shape[2:]]
        patches = _Patches.apply(images[:, 0].permute(1, 2, 0).contiguous(), self.side, self.window, count)
        kernels = (self.weight.flatten(1) @ self.places.to(self.weight.dtype)).flatten(0, 1)
        outputs = torch.cat([kernels, self.bias.repeat(self.window**2)[:, None]], dim=1) @ patches
        return outputs.view(self.window, self.window, self.out_channels, *count, -1).permute(5, 2, 3, 0, 4, 1)


class WindowedMaximum(nn.Module):
    """Max pooling of the output of `WindowedConvolution`.

    Of equal largest values in a window, the first gets the gradient, as in nn.MaxPool2d.
    A second derivative is not available.
    """

    def forward(self, windows: Tensor) -> Tensor:
        """Compute the largest value of each window.

        Args:
            windows: The values in windows, (b, channels, rows, window, columns, window).
        Returns:
            The largest values, (b, channels, rows, columns).
        """
        if not len(windows):
            return windows.amax(dim=(3, 5))  # The function max_pool2d below needs at least one channel.
        # The output of the convolution is contiguous in this order of axes.
        places = windows.permute(3, 5, 1, 2, 4, 0)
        return _Maximum.apply(places.flatten(2)).view(places.shape[2:]).permute(3, 0, 1, 2)

    def lipschitz(self) -> float:
        """Return the Lipschitz constant of max pooling, 1. Source: (Section 4.3) of the paper."""
        return 1.0


class Pointwise(nn.Conv2d):
    """nn.Conv2d with a kernel of 1 × 1, computed as a fully connected layer at each pixel.

    If the channels are last in memory, the product needs no copy of the input.

    Args:
        inputs: The number of input channels.
        outputs: The number of output channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images.

        Args:
            x: The images, (b, inputs, height, width).
        Returns:
            The outputs, (b, outputs, height, width).
        """
        return linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class UnevenlyPadded(nn.Conv2d):
    """nn.Conv2d with less zero padding above and on the left than below and on the right.

    The images get the same padding on both sides, and the kernel gets zeros above and on the left.
    The result is the same as with uneven padding of the images.
    A padded copy of the images would take longer than the convolution itself.

    Args:
        sizes: The positional arguments of nn.Conv2d.
        fewer: The number of rows that the padding lacks above, and the number of columns that it lacks on the
            left.
        options: The keyword arguments of nn.Conv2d. `padding` is the padding below and on the right.
    Attributes:
        fewer: The argument `fewer`.
    """

    def __init__(self, *sizes: int, fewer: Sequence[int], **options: Any):
        super().__init__(*sizes, **options)
        self.fewer = fewer

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images.

        Args:
            x: The images, (b, channels, height, width).
        Returns:
            The outputs, (b, output channels, rows, columns).
        """
        rows, columns = self.fewer
        kernels = pad(self.weight, (columns, 0, rows, 0))
        return conv2d(x, kernels, self.bias, self.stride, self.padding, groups=self.groups)


KINDS = (WindowedConvolution, Pointwise, UnevenlyPadded)


class _Patches(torch.autograd.Function):
    """The patches of (height, width, b) images as columns of a matrix (side² + 1, rows · columns · b).

    The last row of the matrix is 1, for the bias.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, side: int, step: int, count: Sequence[int]) -> Tensor:
        """Copy the patches of images."""
        ctx.shape, ctx.parting = images.shape, (side, step, count)
        patches = images.new_empty(side**2 + 1, *count, images.shape[2])
        pixels, ones = patches[:-1].view(side, side, *count, -1), patches[-1]
        pixels.copy_(_shifted(images, pixels.shape, step))
        ones.fill_(1)
        return patches.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Add up the gradients of each pixel over the patches that contain it."""
        side, step, count = ctx.parting
        images = gradient.new_zeros(ctx.shape)
        pixels = gradient[:-1].view(side, side, *count, -1)
        # Each part is at most as large as the step between patches, and so no two patches share its pixels.
        for i in range(0, side, step):
            for j in range(0, side, step):
                part = pixels[i : i + step, j : j + step]
                _shifted(images[i:, j:], part.shape, step).add_(part)
        return images, None, None, None


def _shifted(images: Tensor, shape: Sequence[int], step: int) -> Tensor:
    """A view (i, j, rows, columns, b) of (height, width, b) images.

    It has pixel (i, j) of each patch. The patches begin at every multiple of the step.
    """
    height, width, last = images.stride()
    return images.as_strided(
        shape, (height, width, step * height, step * width, last), images.storage_offset()
    )


class _Maximum(torch.autograd.Function):
    """The largest of (window, window, n) values over both windows' axes: (n,)."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor) -> Tensor:
        """Compute the largest values."""
        # The windows are one image of n channels, which are last in memory.
        # Its pooling is five times as fast as max(0), and it treats equal values in the same way.
        image = windows.view(1, *windows.shape).permute(0, 3, 1, 2)
        values, first = max_pool2d(image, windows.shape[:2], return_indices=True)
        ctx.save_for_backward(first.view(1, -1))
        ctx.shape = windows.shape
        return values.view(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Pass each gradient on to the largest value of its window."""
        (first,) = ctx.saved_tensors
        values = gradient.new_zeros(ctx.shape)
        values.flatten(0, 1).scatter_(0, first, gradient[None])
        return values
