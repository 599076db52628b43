"""Near examples by a few gradients, against the attack's exploration, whose path they are of."""

import pytest
import torch

from blindspots.attack.problem import Problem
from blindspots.attack.quick_attack import near_examples
from blindspots.attack.sqp import SQP, explore
from blindspots.attack.targets import second_targets
from blindspots.networks import architectures
from blindspots.networks.fully_connected import layers_of


@pytest.mark.parametrize(
    ("activation", "bounds"), [("sigmoid", (0.0, 1.0)), ("tanh", (-1.0, 1.0)), ("relu", (0.0, float("inf")))]
)
def test_near_examples_are_those_of_the_exploration_without_noise(activation, bounds):
    network = architectures.fully_connected([9], [8, 7, 4], activation)
    architectures.initialise(network, torch.Generator().manual_seed(0))
    network.double().requires_grad_(False)
    x = torch.rand(50, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        for layer in architectures.weight_layers(network):
            layer.weight *= 3  # so that the points are of several classes
            layer.bias -= layer.weight.sum(1) / 2
        targets = second_targets(network(x), network(x).argmax(1))
        points, found = near_examples(layers_of(network), x, targets, bounds)
    problem = Problem(network, x, targets, bounds, margin=4e-3)
    none = torch.zeros(len(x), dtype=torch.bool)
    expected, reached = explore(problem, problem.x, none, SQP(exploration=4, noise=0.0, momentum=0.0))
    assert torch.equal(found, reached)
    assert 0.2 < found.double().mean() <= 1
    torch.testing.assert_close(points[found], problem.images(expected)[found], rtol=1e-6, atol=1e-6)
    assert torch.equal(points[~found], x[~found])
    assert ((points >= bounds[0]) & (points <= bounds[1])).all()
    assert (network(points[found]).argmax(1) == targets[found]).all()
