"""Fully connected networks with the products of their forward and backward passes written out.

Torch's own differentiation takes 1.1 to 1.2 times as long. The units of a layer are rows here and the images columns, which
is the faster way round.
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
    apply: Callable[[Tensor], Tensor]  # in place
    slope: Callable[
        [Tensor, Tensor], Tensor
    ]  # of a loss by what enters, from that by what leaves and what leaves
    range: tuple[float, float]


_ACTIVATIONS = {
    nn.Sigmoid: Activation(torch.sigmoid_, torch.ops.aten.sigmoid_backward, (0.0, 1.0)),
    nn.Tanh: Activation(torch.tanh_, torch.ops.aten.tanh_backward, (-1.0, 1.0)),
    nn.ReLU: Activation(torch.relu_, partial(torch.ops.aten.threshold_backward, threshold=0), (0.0, inf)),
}
_LETTERS = {nn.Flatten: "F", Dropout: "D", nn.Linear: "L"} | dict.fromkeys(_ACTIVATIONS, "A")


class Layer(NamedTuple):
    dropout: Dropout | None  # of what enters the linear map
    linear: nn.Linear
    activation: Activation | None  # of what leaves it; None for the last layer, which gives the logits


class Pass(NamedTuple):
    """What a forward pass leaves at a layer with n inputs for the way back."""

    layer: Layer
    values: Tensor  # (n, b) that entered: first those from the layer below, then those that joined them
    below: int  # how many columns are from the layer below
    mask: Tensor | None  # (n, b) of dropout
    inputs: Tensor  # (n, b) of the linear map


def layers_of(network: nn.Module) -> list[Layer] | None:
    """The layers of a network of linear maps and activations by turns, with or without dropout, or None of another one."""
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
    """The passes through the layers, from the first that anything enters, and the logits (k, columns).

    entering: the values (n, b) that enter a layer, by its place. They join those that come from the layer below, as a layer
    is quicker with all of them at once.
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
    """The slopes of a loss by what leaves each linear map, (units, b), and by the values from below, (n, b), by pass.

    slope:    that by the logits, (k, b).
    to_first: also by the values that enter the first layer.
    """
    of_linear, of_values = [slope], {}
    for place in reversed(range(0 if to_first else 1, len(passes))):
        layer, values, below, mask, _ = passes[place]
        if place:
            values, slope = values[:, :below], slope[:, :below]
        slope = torch.mm(
            layer.linear.weight.t(), slope, out=torch.empty_like(values)
        )  # in their order of memory
        if mask is not None:
            slope.mul_(mask[:, : slope.shape[1]])
        of_values[place] = slope
        if place:
            slope = passes[place - 1].layer.activation.slope(slope, values)
            of_linear.insert(0, slope)
    return of_linear, of_values


@torch.no_grad()
def gradient(passes: Sequence[Pass], slopes: Sequence[Tensor]) -> Tensor:
    """One vector of a loss's gradients by the parameters of the layers passed, from its slopes by what leaves them."""
    pairs = zip(passes, slopes, strict=True)
    return flat([part for at, slope in pairs for part in (slope @ at.inputs.t(), slope.sum(1))])
