"""The paper's networks."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from blindspots.networks import architectures
from blindspots.networks.dropout import Dropout
from blindspots.steps import artifacts, trained_networks
from blindspots.steps.artifacts import Array

DEFINITION = {"kind": "fully_connected", "units": [7, 5, 3], "activation": "sigmoid"}
CONVOLUTION = {
    "kind": "convolutional",
    "channels": 3,
    "kernel": 3,
    "pool": 2,
    "units": [6, 4],
    "activation": "relu",
    "dropout": 0.5,
}
FUNCTIONS = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}


def built(definition=DEFINITION, inputs=12, seed=0):
    network = architectures.build(definition, [inputs])
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize(("activation", "function"), FUNCTIONS.items())
def test_logits_are_those_of_the_formula(activation, function):
    network = built(DEFINITION | {"activation": activation})
    for layer in architectures.weight_layers(network):
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    images = torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(2))
    values = images.reshape(4, -1).numpy()
    weights = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in architectures.weight_layers(network)
    ]
    for number, (weight, bias) in enumerate(weights):
        values = values @ weight.T + bias
        values = function(values) if number < len(weights) - 1 else values
    assert network(images).detach().numpy() == pytest.approx(values, abs=1e-5)


def test_one_entry_in_units_is_the_softmax_classifier():
    network = architectures.fully_connected([12], [10], "sigmoid")
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear]


def test_weight_layers_go_from_the_input_upwards():
    assert [tuple(layer.weight.shape) for layer in architectures.weight_layers(built())] == [
        (7, 12),
        (5, 7),
        (3, 5),
    ]
    mixed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    assert [type(layer) for layer in architectures.weight_layers(mixed)] == [nn.Conv2d, nn.Linear]


def test_initial_weights_are_glorots_uniform_and_biases_zero():
    network = built(DEFINITION | {"units": [300, 200]}, inputs=100)
    for layer in architectures.weight_layers(network):
        limit = math.sqrt(6 / sum(layer.weight.shape))
        assert layer.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert layer.weight.abs().max().item() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


def test_initial_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    one, again, other = (architectures.weight_layers(built(seed=seed))[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_frozen_networks_are_in_evaluation_mode_without_gradients():
    network = architectures.frozen(built())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_read_from_its_artifact_says_the_same(tmp_path):
    network = built()
    parameters = {f"parameters/{key}": Array(value, "weights") for key, value in network.state_dict().items()}
    settings = {"network": DEFINITION, "seed": 0}
    artifacts.write(
        tmp_path / "n.h5", parameters | {"image_shape": Array([3, 4], "shape")}, {"settings": settings}
    )
    again = trained_networks.read(tmp_path / "n.h5")
    images = torch.rand(5, 3, 4)
    assert torch.equal(again(images), network(images))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_an_artifact_whose_weights_do_not_fit_its_definition_is_refused(tmp_path):
    parameters = {f"parameters/{key}": Array(value, "weights") for key, value in built().state_dict().items()}
    settings = json.dumps({"network": DEFINITION | {"units": [7, 3]}})
    artifacts.write(
        tmp_path / "n.h5", parameters | {"image_shape": Array([3, 4], "shape")}, {"settings": settings}
    )
    with pytest.raises(RuntimeError):
        trained_networks.read(tmp_path / "n.h5")


# --- Convolution, max pooling, fully connected with dropout, softmax ---


def convolutional(image_shape, seed=0, **changes):
    """A network with random weights, biases too, in double precision."""
    network = architectures.build(CONVOLUTION | changes, image_shape).double()
    for number, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(100 * seed + number))
    return network.eval()


def some_images(count, image_shape):
    return torch.randn(count, *image_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def pooled(plane, size):
    """The largest of each whole size x size block; what is left at the end belongs to none."""
    height, width = (length // size for length in plane.shape)
    blocks = [
        [plane[size * i : size * (i + 1), size * j : size * (j + 1)] for j in range(width)]
        for i in range(height)
    ]
    return np.array([[block.max() for block in row] for row in blocks])


def by_hand(network, images, pool, function):
    """Logits, with the activation before the pooling as papers have it."""
    convolution, *above = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in architectures.weight_layers(network)
    ]
    rows = []
    for image in images.numpy():
        planes = [
            correlate2d(image, kernel[0], mode="valid") + bias
            for kernel, bias in zip(*convolution, strict=True)
        ]
        rows.append(np.concatenate([pooled(function(plane), pool).ravel() for plane in planes]))
    values = np.array(rows)
    for number, (weight, bias) in enumerate(above):
        values = values @ weight.T + bias
        values = function(values) if number < len(above) - 1 else values
    return values


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize(
    ("image_shape", "kernel", "pool"),
    [
        ((8, 8), 3, 2),
        ((7, 10), 3, 2),  # maps of 5 x 8: the fifth row belongs to no block
        ((9, 6), 2, 3),  # 8 x 5: two rows and two columns are left
        ((5, 5), 5, 1),
        ((6, 6), 3, 4),  # one block for all
        ((10, 7), 1, 3),
    ],
)
def test_a_convolutional_network_is_what_its_parts_are_by_hand(image_shape, kernel, pool, activation):
    network = convolutional(image_shape, kernel=kernel, pool=pool, activation=activation)
    images = some_images(4, image_shape)
    with torch.no_grad():
        logits = network(images)
    assert logits.shape == (4, 4)
    assert logits.numpy() == pytest.approx(by_hand(network, images, pool, FUNCTIONS[activation]), abs=1e-12)


@pytest.mark.parametrize("units", [[4], [6, 4], [6, 5, 4]])
def test_a_convolutional_network_may_have_any_number_of_layers_above(units):
    network = convolutional((7, 10), units=units)
    images = some_images(3, (7, 10))
    assert len(architectures.weight_layers(network)) == 1 + len(units)
    assert network(images).detach().numpy() == pytest.approx(
        by_hand(network, images, 2, FUNCTIONS["relu"]), abs=1e-12
    )


def test_weight_layers_of_a_convolutional_network_begin_with_the_convolution():
    layers = architectures.weight_layers(convolutional((7, 10)))
    assert [isinstance(layer, nn.Conv2d) for layer in layers] == [True, False, False]
    # 5 x 8 maps, pooled to 2 x 4 of three channels
    assert [tuple(layer.weight.shape) for layer in layers] == [(3, 1, 3, 3), (6, 24), (4, 6)]


@pytest.mark.parametrize(("units", "count"), [([4], 0), ([6, 4], 1), ([6, 5, 4], 2)])
def test_dropout_follows_each_hidden_fully_connected_layer_and_never_the_logits(units, count):
    network = convolutional((7, 10), units=units, dropout=0.25)
    kinds = [type(layer) for layer in network]
    assert kinds.count(Dropout) == count
    assert kinds[-1] is nn.Linear
    for place, layer in enumerate(network):
        if isinstance(layer, Dropout):
            assert layer.p == 0.25
            assert kinds[place - 2 : place] == [nn.Linear, nn.ReLU]


def test_dropout_is_active_in_training_alone():
    images = some_images(6, (7, 10))
    network, without = convolutional((7, 10)), convolutional((7, 10), dropout=0.0)
    state = torch.get_rng_state()
    assert torch.equal(network(images), network(images))
    assert torch.equal(network(images), without(images))
    assert torch.equal(torch.get_rng_state(), state)
    network.train()
    assert not torch.allclose(network(images), network(images))
    assert torch.equal(architectures.frozen(network)(images), without(images))


def test_initial_weights_of_a_convolution_are_glorots_and_drawn_first():
    definition = CONVOLUTION | {"channels": 400}
    network = architectures.build(definition, (7, 10))
    architectures.initialise(network, torch.Generator().manual_seed(4))
    first = architectures.weight_layers(network)[0]
    limit = math.sqrt(6 / (9 + 400 * 9))
    assert 0.99 * limit <= first.weight.abs().max().item() <= limit
    assert not first.bias.any()
    wanted = nn.init.xavier_uniform_(torch.empty(400, 1, 3, 3), generator=torch.Generator().manual_seed(4))
    assert torch.equal(first.weight, wanted)


def test_a_convolutional_network_read_from_its_artifact_says_the_same(tmp_path):
    network = convolutional((7, 10), seed=1).float()
    parameters = {f"parameters/{key}": Array(value, "weights") for key, value in network.state_dict().items()}
    settings = {"network": CONVOLUTION, "seed": 0}
    artifacts.write(
        tmp_path / "n.h5", parameters | {"image_shape": Array((7, 10), "shape")}, {"settings": settings}
    )
    again = trained_networks.read(tmp_path / "n.h5")
    images = some_images(5, (7, 10)).float()
    assert torch.equal(again(images), network(images))
    assert torch.equal(again(images), again(images))
    assert not any(layer.training for layer in again)
    assert not any(parameter.requires_grad for parameter in again.parameters())
