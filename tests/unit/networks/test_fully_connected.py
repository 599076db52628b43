"""The written-out passes of fully connected networks, against torch's own differentiation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from blindspots.networks import architectures
from blindspots.networks.cross_entropy import backpropagated, evaluated
from blindspots.networks.dropout import Dropout
from blindspots.networks.flattening import flat
from blindspots.networks.fully_connected import backward, forward, layers_of

IMAGES = 7
PLACES = [0, 1, 2]  # of a network with two hidden layers
WIDTHS = [6, 5, 4]


def network_of(activation="sigmoid", dropout=(), units=(5, 4, 3)):
    network = architectures.fully_connected([2, 3], units, activation, dropout).double()
    architectures.initialise(network, torch.Generator().manual_seed(0))
    return network


def rows(width, seed=0):
    return torch.rand(IMAGES, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def above(network, place):
    """The modules from a layer on, its dropout included."""
    linear = [number for number, module in enumerate(network) if isinstance(module, nn.Linear)][place]
    return network[linear - isinstance(network[linear - 1], Dropout) :]


def same_masks(monkeypatch):
    """Masks that depend on an image and a unit alone, whether images are rows or columns."""

    def mask(self, x):
        turned = x if len(x) == IMAGES else x.t()
        kept = (rows(turned.shape[1], seed=9) > self.p).double() / (1 - self.p)
        return kept if turned is x else kept.t()

    monkeypatch.setattr(Dropout, "mask", mask)


def by_torch(network, entering, labels, weight):
    """The gradients of the sum of cross-entropies by the
    parameters, one vector, and by what enters, (b, n)."""
    entering = {place: values.clone().requires_grad_() for place, values in entering.items()}
    loss = weight * sum(
        cross_entropy(above(network, k)(v), labels, reduction="sum") for k, v in entering.items()
    )
    parameters = [*above(network, min(entering)).parameters()]
    found = torch.autograd.grad(loss, [*parameters, *entering.values()])
    return flat(found[: len(parameters)]), found[len(parameters) :]


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@given(places=st.sets(st.sampled_from(PLACES), min_size=1), weight=st.floats(0.1, 3))
def test_the_gradient_is_that_of_all_that_enters_at_any_layers(activation, places, weight):
    network, labels = network_of(activation), torch.arange(IMAGES) % 3
    entering = {place: rows(WIDTHS[place], seed=place) for place in sorted(places)}
    columns = {place: values.t() for place, values in entering.items()}
    found = backpropagated(layers_of(network), columns, labels.repeat(len(places)), weight)
    expected, _ = by_torch(network, entering, labels, weight)
    torch.testing.assert_close(found.gradient, expected)


@pytest.mark.parametrize("dropout", [(), (0.1, 0.3, 0.5)])
def test_the_slopes_are_those_by_the_outputs_of_each_layer(monkeypatch, dropout):
    same_masks(monkeypatch)
    network, labels, images = network_of("sigmoid", dropout), torch.arange(IMAGES) % 3, rows(6)
    found = backpropagated(layers_of(network), {0: images.t()}, labels, 0.5, to_first=True)
    expected, (slope,) = by_torch(network, {0: images}, labels, 0.5)
    torch.testing.assert_close(found.gradient, expected)
    torch.testing.assert_close(found.slopes[0].t(), slope)
    for place in (1, 2):
        values = found.passes[place].values.t()
        torch.testing.assert_close(
            found.slopes[place].t(), by_torch(network, {place: values}, labels, 0.5)[1][0]
        )
    assert sorted(backpropagated(layers_of(network), {0: images.t()}, labels, 0.5).slopes) == [1, 2]


def test_the_slopes_are_of_the_columns_from_below_alone():
    layers = layers_of(network_of())
    passes, logits = forward(layers, {0: rows(6).t(), 1: rows(5).t()})
    assert logits.shape == (3, 2 * IMAGES)
    _, slopes = backward(passes, torch.ones_like(logits))
    assert slopes[1].shape == (5, IMAGES)
    assert slopes[2].shape == (4, 2 * IMAGES)


def test_dropout_is_of_training_alone():
    network = network_of("sigmoid", (0.5, 0.5, 0.5))
    columns = rows(6).t()
    torch.testing.assert_close(forward(layers_of(network.eval()), {0: columns})[1].t(), network(columns.t()))
    one, other = (forward(layers_of(network.train()), {0: columns})[1] for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(2, 3),
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)),
        nn.Sequential(nn.Linear(2, 3), nn.Softplus(), nn.Linear(3, 3)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(2, 3, bias=False)),
        nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3)),
        nn.Sequential(),
    ],
    ids=lambda network: str(network)[:40],
)
def test_other_networks_are_not_taken_for_fully_connected_ones(network):
    assert layers_of(network) is None


@pytest.mark.parametrize("dropout", [(), (0.1, 0.2, 0.3)])
def test_the_layers_are_those_of_the_network(dropout):
    network = network_of("relu", dropout)
    layers = layers_of(network)
    assert [layer.linear for layer in layers] == [
        module for module in network if isinstance(module, nn.Linear)
    ]
    assert [layer.dropout for layer in layers] == (
        [m for m in network if isinstance(m, Dropout)] or [None] * 3
    )
    assert [layer.activation is None for layer in layers] == [False, False, True]
    assert len(layers_of(network_of(units=(3,)))) == 1


def test_what_is_evaluated_is_the_mean_loss_and_the_fraction_misclassified():
    network, images, labels = network_of(), rows(6), torch.arange(IMAGES) % 3
    loss, error = evaluated(network, images, labels)
    assert loss == pytest.approx(cross_entropy(network(images), labels).item(), rel=1e-12)
    assert error == pytest.approx((network(images).argmax(1) != labels).double().mean().item())
