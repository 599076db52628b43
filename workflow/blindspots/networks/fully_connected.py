"""Fully connected networks with explicit matrix products for their forward and backward passes.

Torch's autograd takes 1.1 to 1.2 times as long.
The units of a layer are rows here and the images are columns, which is the faster layout.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blindspots.networks.dropout import Dropout
from blindspots.networks.flattening import flat


class Activation(NamedTuple):
    """An activation function and its derivative.

    Attributes:
        apply: The function that applies the activation in place.
        slope: The function that computes the gradient of a loss with respect to the inputs of the activation.
            Its arguments are the gradient with respect to the outputs, and the outputs.
        range: The lower and the upper bound of the outputs.
    """

    apply: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    range: tuple[float, float]


_ACTIVATIONS = {
    nn.Sigmoid: Activation(torch.sigmoid_, torch.ops.aten.sigmoid_backward, (0.0, 1.0)),
    nn.Tanh: Activation(torch.tanh_, torch.ops.aten.tanh_backward, (-1.0, 1.0)),
    nn.ReLU: Activation(torch.relu_, partial(torch.ops.aten.threshold_backward, threshold=0), (0.0, inf)),
}
_LETTERS = {nn.Flatten: "F", Dropout: "D", nn.Linear: "L"} | dict.fromkeys(_ACTIVATIONS, "A")


class Layer(NamedTuple):
    """A fully connected layer.

    Attributes:
        dropout: The dropout of the inputs of the linear map, or None.
        linear: The linear map, with a bias.
        activation: The activation of the outputs of the linear map. It is None for the last layer, which
            returns the logits.
    """

    dropout: Dropout | None
    linear: nn.Linear
    activation: Activation | None


class Pass(NamedTuple):
    """The record of a forward pass at a layer with n inputs, for the backward pass.

    Attributes:
        layer: The layer.
        values: The values that entered the layer, (n, b). The values from the layer below are the first
            columns, and the values that joined them are the others.
        below: The number of columns from the layer below.
        mask: The factors of dropout, (n, b), or None without dropout.
        inputs: The inputs of the linear map, (n, b), which are the values after dropout.
    """

    layer: Layer
    values: Tensor
    below: int
    mask: Tensor | None
    inputs: Tensor


def layers_of(network: nn.Module) -> list[Layer] | None:
    """List the layers of a fully connected network.

    Args:
        network: The network.
    Returns:
        The layers, if the network is an alternation of linear maps with biases and activations, with or
        without dropout. Otherwise None.
    """
    if not isinstance(network, nn.Sequential):
        return None
    modules = list(network)
    letters = "".join(_LETTERS.get(type(module), "?") for module in modules)
    biased = all(module.bias is not None for module in modules if type(module) is nn.Linear)
    if not biased or not re.fullmatch("F?(D?LA)*D?L", letters):
        return None
    return [
        Layer(
            modules[place - 1] if letters[:place].endswith("D") else None,
            modules[place],
            _ACTIVATIONS[type(modules[place + 1])] if letters[place + 1 :] else None,
        )
        for place in (match.start() for match in re.finditer("L", letters))
    ]


@torch.no_grad()
def forward(layers: Sequence[Layer], entering: Mapping[int, Tensor]) -> tuple[list[Pass], Tensor]:
    """Compute a forward pass, from the first layer that any values enter.

    The values that enter a layer are appended to those from the layer below.
    A layer is faster with all of them at once.

    Args:
        layers: The layers of the network.
        entering: The values that enter a layer, (n, b), by the index of the layer.
    Returns:
        The record of the pass at each layer in use, and the logits, (k, columns).
    """
    passes, leaving = [], None
    for place, layer in enumerate(layers):
        parts = [part for part in (leaving, entering.get(place)) if part is not None]
        if not parts:
            continue
        values = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        mask = layer.dropout.mask(values) if layer.dropout else None
        inputs = values if mask is None else values * mask
        passes.append(Pass(layer, values, 0 if leaving is None else leaving.shape[1], mask, inputs))
        leaving = torch.addmm(layer.linear.bias[:, None], layer.linear.weight, inputs)
        if layer.activation:
            leaving = layer.activation.apply(leaving)
    return passes, leaving


@torch.no_grad()
def backward(
    passes: Sequence[Pass], slope: Tensor, to_first: bool = False
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Compute a backward pass.

    Args:
        passes: The record of the forward pass at each layer in use.
        slope: The gradient of a loss with respect to the logits, (k, b).
        to_first: Whether the gradient with respect to the values that enter the first layer in use is
            computed too.
    Returns:
        The gradients with respect to the outputs of each linear map, (units, b), in the order of the passes.
        The gradients with respect to the values from the layer below, (n, b), by the index of the pass.
    """
    of_linear, of_values = [slope], {}
    for place in reversed(range(0 if to_first else 1, len(passes))):
        layer, values, below, mask, _ = passes[place]
        if place:
            values, slope = values[:, :below], slope[:, :below]
        # The result has the memory order of the values.
        slope = torch.mm(layer.linear.weight.t(), slope, out=torch.empty_like(values))
        if mask is not None:
            slope.mul_(mask[:, : slope.shape[1]])
        of_values[place] = slope
        if place:
            slope = passes[place - 1].layer.activation.slope(slope, values)
            of_linear.insert(0, slope)
    return of_linear, of_values


@torch.no_grad()
def gradient(passes: Sequence[Pass], slopes: Sequence[Tensor]) -> Tensor:
    """Compute the gradient of a loss with respect to the parameters of layers.

    Args:
        passes: The record of the forward pass at each layer in use.
        slopes: The gradients of the loss with respect to the outputs of each linear map, (units, b).
    Returns:
        The gradient as one vector, with the weight and then the bias of each layer.
    """
    pairs = zip(passes, slopes, strict=True)
    return flat([part for at, slope in pairs for part in (slope @ at.inputs.t(), slope.sum(1))])
