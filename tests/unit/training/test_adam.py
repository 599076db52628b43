"""Adam, against torch's own."""

import pytest
import torch
from torch import nn

from blindspots.networks.flattening import flat
from blindspots.training.adam import Adam

RATES, STEPS = [0.3, 0.0], 7


def layer():
    torch.manual_seed(0)
    return nn.Linear(5, 3, dtype=torch.float64)


def gradients(network, seed):
    images = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad(network(images).square().sum(), list(network.parameters()))


def stepped(network, steps, optimiser=None):
    optimiser = optimiser or Adam(list(network.parameters()), RATES, 0.1, STEPS)
    for step in steps:
        optimiser.step(flat(gradients(network, step)))
    return optimiser


def test_every_step_is_that_of_torch():
    own, other = layer(), layer()
    optimiser = Adam(list(own.parameters()), RATES, 0.1, STEPS)
    groups = [
        {"params": [p], "weight_decay": rate} for p, rate in zip(other.parameters(), RATES, strict=True)
    ]
    reference = torch.optim.Adam(groups, lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, STEPS)
    for step in range(STEPS):
        optimiser.step(flat(gradients(own, step)))
        for parameter, gradient in zip(other.parameters(), gradients(other, step), strict=True):
            parameter.grad = gradient
        reference.step()
        schedule.step()
        for found, wanted in zip(own.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_from_its_state_it_goes_on_as_if_it_had_not_stopped():
    whole, parted, later = layer(), layer(), layer()
    stepped(whole, range(5))
    kept = stepped(parted, range(2)).state_dict()
    optimiser = Adam(list(later.parameters()), RATES, 0.1, STEPS)
    later.load_state_dict(parted.state_dict())
    optimiser.load_state_dict(kept)
    stepped(later, range(2, 5), optimiser)
    assert all(torch.equal(a, b) for a, b in zip(later.parameters(), whole.parameters(), strict=True))


def test_every_parameter_needs_its_own_decay():
    with pytest.raises(ValueError, match="zip"):
        Adam(list(layer().parameters()), [0.1], 0.1, STEPS)
