"""The paper's networks and pretrained networks, as torch modules that return logits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blindspots.networks.convolution import WindowedConvolution, WindowedMaximum
from blindspots.networks.dropout import Dropout
from blindspots.networks.efficientnet_lite import efficientnet_lite

BATCH_NORM_EPSILON = 1e-3  # This is the value of EfficientNet.
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def fully_connected(
    image_shape: Sequence[int], units: Sequence[int], activation: str, dropout: Sequence[float] = ()
) -> nn.Sequential:
    """Build the paper's FC network: linear maps with an activation between them.

    With one entry in `units` it is the paper's softmax classifier. Source: (Section 2) of the paper.
    The network takes images, (b, *image_shape), and returns logits, (b, units[-1]).

    Args:
        image_shape: The shape of an image.
        units: The number of units of each layer. The last entry is the number of classes.
        activation: The name of the activation, a key of ACTIVATIONS.
        dropout: The dropout rates of the pixels and of the units of each hidden layer. If it is empty, there
            is no dropout.
    Returns:
        The network, untrained.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for place, (fan_in, fan_out) in enumerate(zip([math.prod(image_shape), *units[:-1]], units, strict=True)):
        layers += [Dropout(dropout[place])] if dropout else []
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def convolutional(
    image_shape: Sequence[int],
    channels: int,
    kernel: int,
    pool: int,
    units: Sequence[int],
    activation: str,
    dropout: float,
) -> nn.Sequential:
    """Build the paper's Conv network.

    Its layers are a convolution, max pooling, fully connected layers with dropout, and a softmax classifier.
    Source: (Section 2) of the paper.
    The network takes images of one channel, (b, height, width), and returns logits, (b, units[-1]).
    The activation follows the pooling.
    The result is the same as in the reverse order, at a fraction of the work.

    Args:
        image_shape: The height and width of an image, in pixels.
        channels: The number of channels of the convolution.
        kernel: The height and width of the kernel, in pixels.
        pool: The height and width of a pooling window, which is also its stride.
        units: The number of units of each fully connected layer. The last entry is the number of classes.
        activation: The name of the activation, a key of ACTIVATIONS.
        dropout: The dropout rate of the units of each hidden fully connected layer.
    Returns:
        The network, untrained.
    """
    pooled = [(size - kernel + 1) // pool for size in image_shape]
    layers: list[nn.Module] = [nn.Unflatten(1, (1, image_shape[0]))]
    layers += [WindowedConvolution(channels, kernel, pool), WindowedMaximum()]
    layers += [ACTIVATIONS[activation](), nn.Flatten()]
    for fan_in, fan_out in zip([channels * math.prod(pooled), *units[:-1]], units, strict=True):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation](), Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class Normalise(nn.Module):
    """Normalisation of each colour channel by (x - mean)/std.

    Pretrained networks need normalised input. With this layer their images remain pixels in [0, 1].

    Args:
        mean: The mean of each channel, for pixels in [0, 1].
        std: The standard deviation of each channel, for pixels in [0, 1].
    Attributes:
        mean: The means, (channels, 1, 1).
        std: The standard deviations, (channels, 1, 1).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images.

        Args:
            x: The images, (b, channels, height, width), in [0, 1].
        Returns:
            The normalised images in the same shape.
        """
        return (x - self.mean) / self.std

    def lipschitz(self) -> float:
        """Return the Lipschitz constant of the layer, 1/min(std)."""
        return 1 / self.std.min().item()


def alexnet(
    image_shape: Sequence[int], classes: int, mean: Sequence[float], std: Sequence[float]
) -> nn.Sequential:
    """Build AlexNet for pixels in [0, 1], in the one-column variant of torchvision.

    Source: (Section 2) of the paper, reference [9].
    The network takes images, (b, 3, height, width), and returns logits, (b, classes).

    Args:
        image_shape: The shape of an image, which is not used.
        classes: The number of classes.
        mean: The mean of each colour channel.
        std: The standard deviation of each colour channel.
    Returns:
        The network, untrained.
    """
    from torchvision import models  # This import is local, because it doubles the start time of a job.

    return _for_photographs(mean, std, models.alexnet(num_classes=classes))


def normalised_efficientnet_lite(
    image_shape: Sequence[int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: float,
    depth: float,
) -> nn.Sequential:
    """Build an EfficientNet-Lite for pixels in [0, 1].

    The network takes images, (b, 3, height, width), and returns logits, (b, classes).

    Args:
        image_shape: The shape of an image, (3, height, width).
        classes: The number of classes.
        mean: The mean of each colour channel.
        std: The standard deviation of each colour channel.
        width: The factor that scales the numbers of channels.
        depth: The factor that scales the numbers of blocks of the stages.
    Returns:
        The network, untrained.
    """
    return _for_photographs(mean, std, efficientnet_lite(image_shape, classes, width, depth))


def _for_photographs(mean: Sequence[float], std: Sequence[float], network: nn.Module) -> nn.Sequential:
    """The network after a normalisation, with the channels last in memory.

    Convolutions of many channels are a quarter faster in this memory order.
    """
    return nn.Sequential(Normalise(mean, std), network).to(memory_format=torch.channels_last)


KINDS = {
    "fully_connected": fully_connected,
    "convolutional": convolutional,
    "alexnet": alexnet,
    "efficientnet_lite": normalised_efficientnet_lite,
}


def build(definition: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    """Build a network from its definition.

    Args:
        definition: The `kind` of the network, a key of KINDS, and the arguments of this kind.
        image_shape: The shape of an image.
    Returns:
        The network, without the initialisation by `initialise`.
    """
    arguments = {key: value for key, value in definition.items() if key != "kind"}
    return KINDS[definition["kind"]](image_shape, **arguments)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise a network with Glorot's uniform weights and zero biases.

    The weights are drawn in the order of the layers.

    Args:
        network: The network, which is changed in place.
        generator: The generator of random numbers.
    """
    for layer in weight_layers(network):
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def weight_layers(network: nn.Module) -> list[nn.Module]:
    """List the layers that have connection weights.

    Args:
        network: The network.
    Returns:
        The linear and convolutional layers, from the input to the output.
    """
    return [layer for layer in network.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]


def load_matching_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of another network that has the same layers in the same order.

    The names of the weights do not matter.
    A batch normalisation is folded into the layer before it.

    Args:
        network: The network, which is changed in place.
        weights: The weights by name, layer by layer.
    Raises:
        ValueError: If the number or the shapes of the weights do not match the network.
    """
    own, values = network.state_dict(), _folded(weights)
    shapes, found = ([tuple(value.shape) for value in tensors] for tensors in (own.values(), values))
    if shapes != found:
        place = next(
            (i for i, (a, b) in enumerate(zip(shapes, found, strict=False)) if a != b),
            min(len(shapes), len(found)),
        )
        there, wanted = ([*map(str, sizes), "none"][min(place, len(sizes))] for sizes in (found, shapes))
        raise ValueError(
            f"its tensor {place + 1} of {len(found)} has shape {there}; the network has {wanted} there"
        )
    network.load_state_dict(dict(zip(own, values, strict=True)))


def _folded(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """The weight and the bias of each layer, with the batch normalisation after it folded into them."""
    values: list[Tensor] = []
    for name, value in weights.items():
        prefix, _, kind = name.rpartition(".")
        if kind == "running_mean":  # The last two values are the weight γ and bias β of this normalisation.
            gamma, beta = values.pop(-2), values.pop()
            scale = gamma / torch.sqrt(weights[f"{prefix}.running_var"] + BATCH_NORM_EPSILON)
            values[-1] = values[-1] * scale[:, None, None, None]
            values.append(beta - value * scale)
        elif kind in ("weight", "bias"):
            values.append(value)
    return values


def frozen(network: nn.Module) -> nn.Module:
    """Set a network to evaluation mode, and exclude its parameters from gradients.

    Args:
        network: The network, which is changed in place.
    Returns:
        The same network.
    """
    return network.eval().requires_grad_(False)
