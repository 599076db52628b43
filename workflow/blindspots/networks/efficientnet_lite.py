"""EfficientNet-Lite: EfficientNet (Tan and Le, 2019) with ReLU6 and without squeeze-and-excitation.

Every convolution has the batch normalisation after it folded into its weights and bias, as a trained network allows.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from blindspots.networks.convolution import Pointwise, UnevenlyPadded

_STEM, _HEAD = 32, 1280
# Of each stage, before scaling: repeats, kernel, stride of the first block, expansion, channels.
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
    """An inverted residual: expansion, depthwise convolution, projection; the input is added where the shape allows."""

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
        return x + self.residual(x) if self.skips else self.residual(x)


def efficientnet_lite(image_shape: Sequence[int], classes: int, width: float, depth: float) -> nn.Sequential:
    """The network for (b, 3, height, width) normalised images; output (b, classes) logits.

    width, depth: by which channels and repeats are scaled; Lite0 is (1, 1), Lite1 (1, 1.1), Lite2 (1.1, 1.2).
    """
    colours, *size = image_shape
    layers: list[nn.Module] = [_same_convolution(colours, _STEM, 3, 2, size), nn.ReLU6()]
    channels, size = _STEM, _halved(size, 2)
    for place, (repeats, kernel, stride, expansion, outputs) in enumerate(_STAGES):
        outputs = _scaled(outputs, width)
        if 0 < place < len(_STAGES) - 1:  # the first and the last stage stay as they are
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
    """Padded so that (height, width) becomes ⌈(height, width)/stride⌉; what cannot be halved goes below and to the right."""
    missing = [max(0, (math.ceil(n / stride) - 1) * stride + kernel - n) for n in size]
    around, odd = [math.ceil(total / 2) for total in missing], [total % 2 for total in missing]
    return UnevenlyPadded(inputs, outputs, kernel, stride, padding=around, fewer=odd, groups=groups)


def _halved(size: Sequence[int], stride: int) -> list[int]:
    return [math.ceil(n / stride) for n in size]


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8, but not less than nine tenths."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
