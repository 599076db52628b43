"""Training on working sets comes to a minimum of the loss of
all images, at less than what these cost every time."""

import numpy as np
import pytest
import torch

from blindspots.networks import architectures
from blindspots.solvers.limited_memory import NO_DESCENT, NOT_FINITE, OUT_OF_ITERATIONS
from blindspots.training import convergence, samples, working_set

# Digits of a kind: each class is the sum of two strokes of
# eight, blurred by noise, so that some images are hard.
_GENERATOR = torch.Generator().manual_seed(0)
STROKES = torch.rand(8, 64, generator=_GENERATOR) * (torch.rand(8, 64, generator=_GENERATOR) < 0.3)
NOISE = 0.8
LABELS = torch.randint(0, 4, (3000,), generator=_GENERATOR)
IMAGES = (STROKES[LABELS] + STROKES[LABELS + 4] + NOISE * torch.randn(3000, 64, generator=_GENERATOR)).clamp(
    0, 1
)
FRESH = torch.randint(0, 4, (2000,), generator=_GENERATOR)
TEST = (STROKES[FRESH] + STROKES[FRESH + 4] + NOISE * torch.randn(2000, 64, generator=_GENERATOR)).clamp(0, 1)
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    """Samples and working sets as small against these images as they are against tens of thousands."""
    monkeypatch.setattr(working_set, "_BEGINNING", ((200, 20), (600, 20)))
    monkeypatch.setattr(working_set, "_SMALLEST", 100)


def trained(
    method="working_set", units=(12, 4), activation="sigmoid", seed=1, images=IMAGES, labels=LABELS, **changes
):
    network = architectures.fully_connected([64], units, activation)
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    options = {"weight_decay": [1e-5] * len(units), "gradient_tolerance": TOLERANCE} | changes
    return network, convergence.fit(network, images, labels, method=method, **options)


def loss_and_gradient(network, rate=1e-5):
    """Of all images, in double precision."""
    network = network.double()
    loss = torch.nn.functional.cross_entropy(network(IMAGES.double()), LABELS)
    loss = loss + sum(
        rate / 2 * layer.weight.square().sum() for layer in architectures.weight_layers(network)
    )
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
    return loss.item(), gradient


def error(network, images, labels):
    return (network(images).argmax(1) != labels).double().mean().item()


@pytest.mark.parametrize(
    ("units", "activation"), [([12, 4], "sigmoid"), ([10, 8, 4], "tanh"), ([4], "sigmoid")]
)
def test_it_ends_at_the_same_kind_of_point_as_the_full_batch(units, activation):
    ends = {"working_set": [], "full_batch": []}
    for method, found in ends.items():
        for seed in (1, 2):
            network, result = trained(method, units, activation, seed=seed)
            assert result.converged
            errors = error(network, IMAGES, LABELS), error(network, TEST, FRESH)
            loss, gradient = loss_and_gradient(network)
            assert gradient.abs().max() <= 1.01 * TOLERANCE
            found.append((loss, *errors))
    (loss, *errors), (wanted, *others) = (np.mean(found, axis=0) for found in ends.values())
    assert 0.9 * wanted < loss < 1.02 * wanted
    assert errors == pytest.approx(others, abs=0.005)


def test_kinks_do_not_keep_it_from_a_minimum():
    network, result = trained(activation="relu")
    loss, gradient = loss_and_gradient(network)
    assert result.converged
    assert gradient.abs().max() <= 1.1 * TOLERANCE
    assert loss < 0.002
    assert error(network.float(), IMAGES, LABELS) == 0


def test_most_iterations_are_on_the_hardest_images_and_it_costs_less(monkeypatch):
    chosen = []
    hardest = working_set._hardest
    monkeypatch.setattr(working_set, "_hardest", lambda *given: chosen.append(hardest(*given)) or chosen[-1])
    _, result = trained()
    _, plain = trained("full_batch", history=100)
    sizes = [len(rows) for rows in chosen if rows is not None]
    assert sizes
    assert max(sizes) <= samples.LARGEST * 3000
    assert result.history[-1].evaluations < 0.6 * plain.history[-1].evaluations


def test_the_working_set_has_its_share_of_the_doubt_and_the_hardest_images():
    doubt = torch.linspace(0, 1, 1000) ** 20
    rows = working_set._hardest(doubt, 100)
    share = doubt[rows].sum() / doubt.sum()
    assert share >= working_set._SHARE
    assert doubt[rows[:-1]].sum() / doubt.sum() < working_set._SHARE
    others = torch.ones(1000, dtype=torch.bool).index_fill(0, rows, False)
    assert doubt[others].max() <= doubt[rows].min()
    assert len(working_set._hardest(doubt, 300)) == 300
    assert working_set._hardest(doubt, 401) is None
    assert working_set._hardest(torch.ones(1000), 100) is None


def test_the_record_is_of_all_images_at_every_point_that_was_kept():
    network, result = trained()
    loss, gradient = loss_and_gradient(network)
    last = result.history[-1]
    assert last.loss == pytest.approx(loss, rel=1e-5)
    assert last.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-2)
    assert last.gradient_max == pytest.approx(gradient.abs().max().item(), rel=2e-2)
    assert last.error == error(network.float(), IMAGES, LABELS)
    losses = [state.loss for state in result.history]
    assert losses == sorted(losses, reverse=True)
    costs = [state.evaluations for state in result.history]
    assert costs == sorted(costs)


def test_a_working_set_that_leads_up_is_given_up_for_a_larger_one(monkeypatch):
    smallest = []
    hardest = working_set._hardest

    def misled(doubt, least):
        smallest.append(least)
        return (
            torch.arange(2) if least <= 400 else hardest(doubt, least)
        )  # two images, with no bound on their loss

    monkeypatch.setattr(working_set, "_hardest", misled)
    _, result = trained()
    assert result.converged
    assert max(smallest) > 400
    losses = [state.loss for state in result.history]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_weights_have_the_same_bytes_for_any_number_of_threads(threads):
    network, result = trained(max_iterations=80)
    other, same = trained(max_iterations=80, threads=threads)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert result == same


@pytest.mark.parametrize("limit", [1, 30, 60])
def test_there_are_no_more_iterations_than_are_allowed(monkeypatch, limit):
    made = []
    for module in (working_set, samples):
        minimise = module.minimise
        monkeypatch.setattr(
            module, "minimise", lambda *a, f=minimise, **k: made.append(f(*a, **k)) or made[-1]
        )
    _, result = trained(max_iterations=limit, gradient_tolerance=1e-8)
    assert sum(found.iterations for found in made) == limit
    assert (result.converged, result.message) == (False, OUT_OF_ITERATIONS)


def test_a_tolerance_below_what_single_precision_can_tell_is_the_end_with_a_message():
    network, result = trained(gradient_tolerance=1e-12, max_iterations=5000, weight_decay=[1e-2] * 2)
    assert (result.converged, result.message) == (False, NO_DESCENT)
    assert loss_and_gradient(network, 1e-2)[1].abs().max() < 1e-4


@pytest.mark.parametrize("count", [60, 200])
def test_of_few_images_all_are_the_working_set(monkeypatch, count):
    chosen = []
    hardest = working_set._hardest
    monkeypatch.setattr(working_set, "_hardest", lambda *given: chosen.append(hardest(*given)) or chosen[-1])
    network, result = trained(images=IMAGES[:count], labels=LABELS[:count])
    assert result.converged
    assert chosen
    assert all(rows is None for rows in chosen)
    assert error(network, IMAGES[:count], LABELS[:count]) < 0.1


def test_a_loss_that_is_no_number_is_the_end():
    images = IMAGES.clone()
    images[7, 3] = torch.nan
    _, result = trained(images=images)
    assert (result.converged, result.message) == (False, NOT_FINITE)
    assert len(result.history) == 1


@pytest.mark.parametrize("limit", [1, 2, 7, 30])
def test_few_iterations_are_not_all_made_on_samples(limit):
    _, result = trained(max_iterations=limit)
    assert len(result.history) > 1
    assert result.message == OUT_OF_ITERATIONS
