"""The paper's networks, as torch modules that return logits."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blindspots import artifacts

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def fully_connected(image_shape: Sequence[int], units: Sequence[int], activation: str) -> nn.Sequential:
    """The paper's FC: linear maps with an activation between them; with one entry in `units`, its softmax classifier.

    Input (b, *image_shape); output (b, units[-1]) logits.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip([math.prod(image_shape), *units[:-1]], units, strict=True):
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
    layers: list[nn.Module] = [nn.Unflatten(1, (1, image_shape[0])), nn.Conv2d(1, channels, kernel), nn.MaxPool2d(pool)]
    layers += [ACTIVATIONS[activation](), nn.Flatten()]
    for fan_in, fan_out in zip([channels * math.prod(pooled), *units[:-1]], units, strict=True):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation](), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


KINDS = {"fully_connected": fully_connected, "convolutional": convolutional}


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


def frozen(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its parameters out of every gradient."""
    return network.eval().requires_grad_(False)


def read(path: Path) -> nn.Module:
    """The trained network of an artifact, frozen."""
    with artifacts.read(path) as file:
        network = build(json.loads(file.attrs["settings"])["network"], file["image_shape"][()].tolist())
        network.load_state_dict({name: torch.from_numpy(values[()]) for name, values in file["parameters"].items()})
    return frozen(network)
