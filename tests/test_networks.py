"""The paper's networks."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from blindspots import artifacts, networks
from blindspots.artifacts import Dataset

DEFINITION = {"kind": "fully_connected", "units": [7, 5, 3], "activation": "sigmoid"}


def built(definition=DEFINITION, inputs=12, seed=0):
    network = networks.build(definition, [inputs])
    networks.initialise(network, torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize(
    ("activation", "function"),
    [("sigmoid", lambda z: 1 / (1 + np.exp(-z))), ("relu", lambda z: np.maximum(z, 0)), ("tanh", np.tanh)],
)
def test_logits_are_those_of_the_formula(activation, function):
    network = built(DEFINITION | {"activation": activation})
    for layer in networks.weight_layers(network):
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    images = torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(2))
    values = images.reshape(4, -1).numpy()
    weights = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in networks.weight_layers(network)]
    for number, (weight, bias) in enumerate(weights):
        values = values @ weight.T + bias
        values = function(values) if number < len(weights) - 1 else values
    assert network(images).detach().numpy() == pytest.approx(values, abs=1e-5)


def test_one_entry_in_units_is_the_softmax_classifier():
    network = networks.fully_connected([12], [10], "sigmoid")
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear]


def test_weight_layers_go_from_the_input_upwards():
    assert [tuple(layer.weight.shape) for layer in networks.weight_layers(built())] == [(7, 12), (5, 7), (3, 5)]
    mixed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    assert [type(layer) for layer in networks.weight_layers(mixed)] == [nn.Conv2d, nn.Linear]


def test_initial_weights_are_glorots_uniform_and_biases_zero():
    network = built(DEFINITION | {"units": [300, 200]}, inputs=100)
    for layer in networks.weight_layers(network):
        limit = math.sqrt(6 / sum(layer.weight.shape))
        assert layer.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert layer.weight.abs().max().item() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


def test_initial_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    one, again, other = (networks.weight_layers(built(seed=seed))[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_frozen_networks_are_in_evaluation_mode_without_gradients():
    network = networks.frozen(built())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_read_from_its_artifact_says_the_same(tmp_path):
    network = built()
    parameters = {f"parameters/{key}": Dataset(value, "weights") for key, value in network.state_dict().items()}
    settings = {"network": DEFINITION, "seed": 0}
    artifacts.write(tmp_path / "n.h5", parameters | {"image_shape": Dataset([3, 4], "shape")}, {"settings": settings})
    again = networks.read(tmp_path / "n.h5")
    images = torch.rand(5, 3, 4)
    assert torch.equal(again(images), network(images))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_an_artifact_whose_weights_do_not_fit_its_definition_is_refused(tmp_path):
    parameters = {f"parameters/{key}": Dataset(value, "weights") for key, value in built().state_dict().items()}
    settings = json.dumps({"network": DEFINITION | {"units": [7, 3]}})
    artifacts.write(tmp_path / "n.h5", parameters | {"image_shape": Dataset([3, 4], "shape")}, {"settings": settings})
    with pytest.raises(RuntimeError):
        networks.read(tmp_path / "n.h5")
