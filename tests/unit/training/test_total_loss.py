"""The loss of all images at once, added up over parts, and what working sets and samples make of it."""

import pytest
import torch
from test_convergence import IMAGES, LABELS, network_of
from torch import nn

from blindspots.networks import architectures
from blindspots.networks.cross_entropy import summed
from blindspots.networks.flattening import flat
from blindspots.parallel import chunks
from blindspots.parallel.chunks import in_chunks
from blindspots.parallel.workers import Workers
from blindspots.solvers.limited_memory import Point
from blindspots.training.total_loss import TotalLoss, decay

RATES = [0.1, 0.02]


class Doubled(nn.Linear):
    """A linear map that does more than one."""

    def forward(self, x):
        return 2 * super().forward(x)


def with_biases(network):
    for number, parameter in enumerate(network.parameters()):  # which start at 0
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    return network


def by_autograd(network, images, labels, convention="half", rates=RATES):
    """The loss and its gradient, of all images at once."""
    loss = nn.functional.cross_entropy(network(images), labels) + decay(network, rates, convention)
    return loss.item(), flat(torch.autograd.grad(loss, list(network.parameters())))


def close(value):
    return pytest.approx(value.numpy() if isinstance(value, torch.Tensor) else value, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("part", [1000, 60, 59, 7, 1])
@pytest.mark.parametrize("convention", ["half", "per_unit", "plain"])
def test_the_total_loss_and_its_gradient_are_those_of_all_images_whatever_the_parts(
    monkeypatch, part, convention
):
    monkeypatch.setattr(chunks, "_LARGEST", {"cpu": part})
    monkeypatch.setattr(chunks, "_SMALLEST", 1)
    network = with_biases(network_of([4, 3]))
    loss, gradient = by_autograd(network, IMAGES, LABELS, convention)
    total = TotalLoss(network, IMAGES, LABELS, RATES, convention)
    point = Point.of(total.of_all, total.values)
    state = total.state(point)
    assert state.loss == close(loss)
    assert state.error == pytest.approx((network(IMAGES).argmax(1) != LABELS).double().mean().item())
    assert state.gradient.numpy() == close(gradient)
    assert not state.gradient.requires_grad


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("units", [[3], [5, 3], [4, 5, 3]])
def test_products_by_hand_are_torchs_own_differentiation(activation, units):
    network = with_biases(architectures.fully_connected([6], units, activation).double())
    losses = nn.functional.cross_entropy(network(IMAGES), LABELS, reduction="none")
    gradient = flat(torch.autograd.grad(losses.sum(), list(network.parameters())))
    sums = summed(network, IMAGES, LABELS)
    assert sums.losses.numpy() == close(losses.detach())
    assert sums.gradient.numpy() == close(gradient)
    assert sums.wrong == (network(IMAGES).argmax(1) != LABELS).sum()


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False), nn.Sigmoid(), nn.Linear(4, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Softplus(), nn.Linear(4, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Sigmoid()),
        nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(4, 3)),
        architectures.fully_connected([6], [4, 3], "sigmoid", dropout=[0.2, 0.5]).eval(),
        nn.Sequential(nn.Flatten(), Doubled(6, 3)),
    ],
)
def test_any_other_network_is_differentiated_by_torch(network):
    network = with_biases(network.double())
    rates = [0.1] * len(architectures.weight_layers(network))
    loss, gradient = by_autograd(network, IMAGES, LABELS, rates=rates)
    found, slope = (total := TotalLoss(network, IMAGES, LABELS, rates, "half")).of_all(total.values)
    assert found == close(loss)
    assert slope.numpy() == close(gradient)


def test_dead_units_do_not_make_wrong_answers_right():
    network = network_of([3])
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert (
        summed(network, IMAGES, LABELS).wrong == (LABELS != 0).sum()
    )  # the first class of equals is the answer


def test_a_sample_is_the_loss_of_its_images_and_counts_as_its_share():
    network = with_biases(network_of([4, 3]))
    total = TotalLoss(network, IMAGES, LABELS, RATES, "half")
    rows = torch.tensor([5, 1, 30])
    found, slope = total.of_sample(rows)(total.values)
    loss, gradient = by_autograd(network, IMAGES[rows], LABELS[rows])
    assert found == close(loss)
    assert slope.numpy() == close(gradient)
    assert total.evaluations == 3 / 60


def test_a_working_sets_loss_is_that_of_all_where_it_was_chosen_and_has_the_others_slope_elsewhere():
    network = with_biases(network_of([4, 3]))
    total = TotalLoss(network, IMAGES, LABELS, RATES, "half")
    here = Point.of(total.of_all, total.values)
    rows, others = torch.arange(10), torch.arange(10, 60)
    function = total.of_working_set(rows, here)
    found, slope = function(here.values)
    assert found == close(here.loss)
    assert slope.numpy() == close(here.gradient)

    kept = summed(network, IMAGES[others], LABELS[others])
    there = here.values + 0.3 * torch.randn(
        len(slope), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found, slope = function(there)  # whose parameters the network has now
    own = summed(network, IMAGES[rows], LABELS[rows])
    linear = kept.losses.sum() + kept.gradient @ (there - here.values)
    assert found == close(((own.losses.sum() + linear) / 60 + decay(network, RATES, "half")).item())
    decayed = flat(
        torch.autograd.grad(decay(network, RATES, "half"), list(network.parameters()), materialize_grads=True)
    )
    assert slope.numpy() == close((own.gradient + kept.gradient) / 60 + decayed)


def test_doubt_is_what_an_images_label_lacks_of_probability_one():
    network = with_biases(network_of([4, 3]))
    total = TotalLoss(network, IMAGES, LABELS, RATES, "half")
    total.of_all(total.values)
    p = network(IMAGES).softmax(1).gather(1, LABELS[:, None])[:, 0]
    assert total.doubt().numpy() == close((1 - p).detach())


@pytest.mark.parametrize("count", [1, 7, 99, 100, 801, 2000, 12_000, 30_000, 60_000])
def test_parts_are_equal_but_the_last_and_enough_for_eight_threads(count):
    sizes = [len(part) for part in in_chunks(torch.zeros(count, 1))]
    assert sum(sizes) == count
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0] <= 1500
    assert len(sizes) % 8 == 0 or sizes[0] == 100 or len(sizes) == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_sum_has_the_same_bytes_for_any_number_of_threads(threads):
    network = architectures.fully_connected([6], [40, 30, 3], "sigmoid")
    architectures.initialise(network, torch.Generator().manual_seed(0))
    images, labels = IMAGES.float().repeat(50, 1, 1), LABELS.repeat(50)
    with Workers(threads) as workers:
        sums = summed(network, images, labels, workers.map)
    alone = summed(network, images, labels)
    assert torch.equal(sums.gradient, alone.gradient)
    assert torch.equal(sums.losses, alone.losses)
    assert sums.wrong == alone.wrong
