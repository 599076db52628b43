"""The paper's networks, and others that come trained, as torch modules that return logits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blindspots.networks.convolution import WindowedConvolution, WindowedMaximum
from blindspots.networks.dropout import Dropout
from blindspots.networks.efficientnet_lite import efficientnet_lite

BATCH_NORM_EPSILON = 1e-3  # of EfficientNet
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def fully_connected(
    image_shape: Sequence[int], units: Sequence[int], activation: str, dropout: Sequence[float] = ()
) -> nn.Sequential:
    """The paper's FC: linear maps with an activation between them; with one entry in `units`, its softmax classifier.

    dropout: the rates of the pixels and of each hidden layer's units, or none. Input (b, *image_shape); output
    (b, units[-1]) logits.
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
    """The paper's Conv: convolution, max pooling, fully connected with dropout, softmax.

    Input (b, height, width), one channel; output (b, units[-1]) logits. The activation follows the pooling, which comes to
    the same as before it, at a fraction of the work.
    """
    pooled = [(size - kernel + 1) // pool for size in image_shape]
    layers: list[nn.Module] = [nn.Unflatten(1, (1, image_shape[0]))]
    layers += [WindowedConvolution(channels, kernel, pool), WindowedMaximum()]
    layers += [ACTIVATIONS[activation](), nn.Flatten()]
    for fan_in, fan_out in zip([channels * math.prod(pooled), *units[:-1]], units, strict=True):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation](), Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class Normalise(nn.Module):
    """(x - mean)/std of each colour: a network that comes trained wants it, and its images stay pixels in [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def lipschitz(self) -> float:
        return 1 / self.std.min().item()


def alexnet(
    image_shape: Sequence[int], classes: int, mean: Sequence[float], std: Sequence[float]
) -> nn.Sequential:
    """Krizhevsky's network in the variant of one column that torchvision has. Input (b, 3, height, width)."""
    from torchvision import models  # here, because it doubles the seconds in which a job starts

    return _for_photographs(mean, std, models.alexnet(num_classes=classes))


def normalised_efficientnet_lite(
    image_shape: Sequence[int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: float,
    depth: float,
) -> nn.Sequential:
    """EfficientNet-Lite for pixels in [0, 1]. Input (b, 3, height, width)."""
    return _for_photographs(mean, std, efficientnet_lite(image_shape, classes, width, depth))


def _for_photographs(mean: Sequence[float], std: Sequence[float], network: nn.Module) -> nn.Sequential:
    """In the order of memory in which convolutions of many channels are a quarter faster."""
    return nn.Sequential(Normalise(mean, std), network).to(memory_format=torch.channels_last)


KINDS = {
    "fully_connected": fully_connected,
    "convolutional": convolutional,
    "alexnet": alexnet,
    "efficientnet_lite": normalised_efficientnet_lite,
}


def build(definition: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    """An uninitialised network from its definition: `kind`, and that kind's own keys."""
    arguments = {key: value for key, value in definition.items() if key != "kind"}
    return KINDS[definition["kind"]](image_shape, **arguments)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Glorot's uniform weights and zero biases, drawn in the order of the layers."""
    for layer in weight_layers(network):
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def weight_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that carry connection weights, from the input upwards."""
    return [layer for layer in network.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]


def load_matching_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of another with the same layers in the same order, under whatever names.

    weights: layer by layer; a batch normalisation is folded into the layer before it. Raises ValueError if they do not fit.
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
    """Weight and bias of each layer, with the batch normalisation after it in them."""
    values: list[Tensor] = []
    for name, value in weights.items():
        prefix, _, kind = name.rpartition(".")
        if kind == "running_mean":  # its own weight and bias, γ and β, came before
            gamma, beta = values.pop(-2), values.pop()
            scale = gamma / torch.sqrt(weights[f"{prefix}.running_var"] + BATCH_NORM_EPSILON)
            values[-1] = values[-1] * scale[:, None, None, None]
            values.append(beta - value * scale)
        elif kind in ("weight", "bias"):
            values.append(value)
    return values


def frozen(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its parameters out of every gradient."""
    return network.eval().requires_grad_(False)
