"""Convolutions that are quicker on a CPU than nn.Conv2d is, for networks in evaluation mode above all.

Of images with one channel and max pooling after it: what a window of the pooling sees is a patch of the image, and the
convolution of a patch is a product with a matrix that is the same for all patches. The images are the last axis in memory:
patches are copied and windows compared in long runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, linear, max_pool2d, pad


class WindowedConvolution(nn.Conv2d):
    """nn.Conv2d of one input channel, whose output is parted into the windows of the pooling that follows.

    Input (b, 1, height, width); output (b, channels, rows, window, columns, window), without what fills no window. Flattened
    it is nn.Conv2d's. Its gradient has no gradient itself: to ask for one raises RuntimeError.
    """

    def __init__(self, channels: int, kernel: int, window: int):
        super().__init__(1, channels, kernel)
        self.window, self.side = window, window + kernel - 1
        taps = torch.eye(kernel**2).view(-1, 1, kernel, kernel)
        pixels = torch.eye(self.side**2).view(-1, 1, self.side, self.side)
        # (window², kernel², side²): for each output of a window and tap of the kernel the pixel that this tap is on.
        places = conv2d(pixels, taps).flatten(2).permute(2, 1, 0).bool().contiguous()
        self.register_buffer("places", places, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        count = [(size - self.side) // self.window + 1 for size in images.shape[2:]]
        patches = _Patches.apply(images[:, 0].permute(1, 2, 0).contiguous(), self.side, self.window, count)
        kernels = (self.weight.flatten(1) @ self.places.to(self.weight.dtype)).flatten(0, 1)
        outputs = torch.cat([kernels, self.bias.repeat(self.window**2)[:, None]], dim=1) @ patches
        return outputs.view(self.window, self.window, self.out_channels, *count, -1).permute(5, 2, 3, 0, 4, 1)


class WindowedMaximum(nn.Module):
    """The largest value of each window: from (b, channels, rows, window, columns, window) to (b, channels, rows, columns).

    Of equal ones the first gets the gradient, as in nn.MaxPool2d, and this gradient has none itself.
    """

    def forward(self, windows: Tensor) -> Tensor:
        if not len(windows):
            return windows.amax(dim=(3, 5))  # as max_pool2d below wants one image's channels at least
        places = windows.permute(3, 5, 1, 2, 4, 0)  # contiguous as they come from the convolution
        return _Maximum.apply(places.flatten(2)).view(places.shape[2:]).permute(3, 0, 1, 2)

    def lipschitz(self) -> float:
        return 1.0


class Pointwise(nn.Conv2d):
    """nn.Conv2d with a kernel of 1 × 1, as a fully connected layer at each pixel: a product without a copy, where the
    channels are last in memory."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class UnevenlyPadded(nn.Conv2d):
    """nn.Conv2d whose padding with zeros has so many `fewer` (rows, columns) above and on the left.

    The kernel gets as many zeros there, and the images the same padding on both sides: a padded copy of them would take
    longer than the convolution itself.
    """

    def __init__(self, *sizes: int, fewer: Sequence[int], **options: Any):
        super().__init__(*sizes, **options)
        self.fewer = fewer

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.fewer
        kernels = pad(self.weight, (columns, 0, rows, 0))
        return conv2d(x, kernels, self.bias, self.stride, self.padding, groups=self.groups)


KINDS = (WindowedConvolution, Pointwise, UnevenlyPadded)


class _Patches(torch.autograd.Function):
    """The patches of (height, width, b) images as columns, with a 1 below for the bias: (side² + 1, rows · columns · b)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, side: int, step: int, count: Sequence[int]) -> Tensor:
        ctx.shape, ctx.parting = images.shape, (side, step, count)
        patches = images.new_empty(side**2 + 1, *count, images.shape[2])
        pixels, ones = patches[:-1].view(side, side, *count, -1), patches[-1]
        pixels.copy_(_shifted(images, pixels.shape, step))
        ones.fill_(1)
        return patches.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        side, step, count = ctx.parting
        images = gradient.new_zeros(ctx.shape)
        pixels = gradient[:-1].view(side, side, *count, -1)
        for i in range(0, side, step):  # pixels no further apart than a step: these the patches do not share
            for j in range(0, side, step):
                part = pixels[i : i + step, j : j + step]
                _shifted(images[i:, j:], part.shape, step).add_(part)
        return images, None, None, None


def _shifted(images: Tensor, shape: Sequence[int], step: int) -> Tensor:
    """A view (i, j, rows, columns, b) of (height, width, b) images: pixel (i, j) of the patches that begin at every step."""
    height, width, last = images.stride()
    return images.as_strided(
        shape, (height, width, step * height, step * width, last), images.storage_offset()
    )


class _Maximum(torch.autograd.Function):
    """The largest of (window, window, n) values over both windows' axes: (n,)."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor) -> Tensor:
        # As one image of n channels, which are last in memory: five times as quick as max(0), and as exact with ties.
        image = windows.view(1, *windows.shape).permute(0, 3, 1, 2)
        values, first = max_pool2d(image, windows.shape[:2], return_indices=True)
        ctx.save_for_backward(first.view(1, -1))
        ctx.shape = windows.shape
        return values.view(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (first,) = ctx.saved_tensors
        values = gradient.new_zeros(ctx.shape)
        values.flatten(0, 1).scatter_(0, first, gradient[None])
        return values
