"""EfficientNet-Lite: EfficientNet (Tan and Le, 2019) with ReLU6 and without squeeze-and-excitation.

The batch normalisation after each convolution is folded into the weights and bias of the convolution.
This is possible because the network is already trained.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from blindspots.networks.convolution import Pointwise, UnevenlyPadded

_STEM, _HEAD = 32, 1280
# Each row has the values of one stage before scaling.
# They are the number of blocks, kernel size, stride of the first block, expansion and output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Block(nn.Module):
    """An inverted residual block: expansion, depthwise convolution and projection.

    The input is added to the output if the stride is 1 and the numbers of channels are equal.

    Args:
        inputs: The number of input channels.
        outputs: The number of output channels.
        kernel: The kernel size of the depthwise convolution, in pixels.
        stride: The stride of the depthwise convolution, in pixels.
        expansion: The factor by which the expansion multiplies the number of channels. For 1 there is no
            expansion.
        size: The height and width of the input, in pixels.
    Attributes:
        residual: The layers of the block.
        skips: Whether the input is added to the output.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, size: Sequence[int]
    ):
        super().__init__()
        hidden = inputs * expansion
        expand = [Pointwise(inputs, hidden), nn.ReLU6()] if expansion > 1 else []
        depthwise = [_same_convolution(hidden, hidden, kernel, stride, size, groups=hidden), nn.ReLU6()]
        self.residual = nn.Sequential(*expand, *depthwise, Pointwise(hidden, outputs))
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: The input, (b, inputs, height, width).
        Returns:
            The output, (b, outputs, ⌈height/stride⌉, ⌈width/stride⌉).
        """
        return x + self.residual(x) if self.skips else self.residual(x)


def efficientnet_lite(image_shape: Sequence[int], classes: int, width: float, depth: float) -> nn.Sequential:
    """Build an EfficientNet-Lite.

    The network takes normalised images, (b, 3, height, width), and returns logits, (b, classes).
    (width, depth) is (1, 1) for Lite0, (1, 1.1) for Lite1 and (1.1, 1.2) for Lite2.

    Args:
        image_shape: The shape of an image, (3, height, width).
        classes: The number of classes.
        width: The factor that scales the numbers of channels.
        depth: The factor that scales the numbers of blocks of the stages.
    Returns:
        The network, untrained.
    """
    colours, *size = image_shape
    layers: list[nn.Module] = [_same_convolution(colours, _STEM, 3, 2, size), nn.ReLU6()]
    channels, size = _STEM, _halved(size, 2)
    for place, (repeats, kernel, stride, expansion, outputs) in enumerate(_STAGES):
        outputs = _scaled(outputs, width)
        if 0 < place < len(_STAGES) - 1:  # The depth of the first and the last stage is not scaled.
            repeats = math.ceil(depth * repeats)
        for first in [True] + [False] * (repeats - 1):
            layers.append(Block(channels, outputs, kernel, stride if first else 1, expansion, size))
            channels, size = outputs, _halved(size, stride if first else 1)
    layers += [
        Pointwise(channels, _HEAD),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(_HEAD, classes),
    ]
    return nn.Sequential(*layers)


def _same_convolution(
    inputs: int, outputs: int, kernel: int, stride: int, size: Sequence[int], groups: int = 1
) -> nn.Conv2d:
    """A convolution with padding, so that (height, width) becomes ⌈(height, width)/stride⌉.

    If the padding of an axis is odd, the extra pixel is below or on the right.
    """
    missing = [max(0, (math.ceil(n / stride) - 1) * stride + kernel - n) for n in size]
    around, odd = [math.ceil(total / 2) for total in missing], [total % 2 for total in missing]
    return UnevenlyPadded(inputs, outputs, kernel, stride, padding=around, fewer=odd, groups=groups)


def _halved(size: Sequence[int], stride: int) -> list[int]:
    """The size after a convolution with this stride, in pixels."""
    return [math.ceil(n / stride) for n in size]


def _scaled(channels: int, width: float) -> int:
    """The scaled number of channels, rounded to the nearest multiple of 8.

    It is at least 8, and at least nine tenths of the exact number.
    """
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
