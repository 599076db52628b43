"""Training to the minimum of the mean cross-entropy with weight decay."""

import json
import math
from itertools import chain

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from blindspots import artifacts, networks, training
from blindspots.artifacts import Dataset
from scripts import train

IMAGES = torch.rand(60, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(1))
DECAY = 0.02


def network_of(units, dtype=torch.float64, seed=0):
    network = networks.fully_connected([6], units, "sigmoid")
    networks.initialise(network, torch.Generator().manual_seed(seed))
    return network.to(dtype)


def fit(network, **changes):
    dtype = network[1].weight.dtype
    options = {"weight_decay": [DECAY] * len(networks.weight_layers(network)), "gradient_tolerance": 1e-6} | changes
    return training.fit(network, IMAGES.to(dtype), LABELS, **options)


def softmax_loss(flat, strength):
    """Mean cross-entropy + strength Σ w² of a linear classifier, and its gradient, by hand."""
    weight, bias = flat[:18].reshape(3, 6), flat[18:]
    x, y = IMAGES.reshape(60, -1).numpy(), LABELS.numpy()
    logits = x @ weight.T + bias
    norm = logsumexp(logits, axis=1)
    slope = np.exp(logits - norm[:, None])
    slope[np.arange(60), y] -= 1
    gradient = np.concatenate([(slope.T @ x / 60 + 2 * strength * weight).ravel(), slope.mean(0)])
    return (norm - logits[np.arange(60), y]).mean() + strength * np.square(weight).sum(), gradient


@pytest.mark.parametrize(
    ("convention", "wanted"),
    # Σ w² is 1 + 4 + 9 = 14 in the first layer, of one unit, and 16 + 25 = 41 in the second, of two.
    [("half", 0.1 * 14 / 2 + 0.01 * 41 / 2), ("per_unit", 0.1 * 14 / 1 + 0.01 * 41 / 2), ("plain", 0.1 * 14 + 0.01 * 41)],
)
def test_decay_is_the_sum_of_its_convention_without_biases(convention, wanted):
    network = networks.fully_connected([3], [1, 2], "sigmoid")
    first, second = networks.weight_layers(network)
    first.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
    second.weight.data = torch.tensor([[4.0], [-5.0]])
    first.bias.data.fill_(100)
    second.bias.data.fill_(100)
    assert training.decay(network, [0.1, 0.01], convention).item() == pytest.approx(wanted)


@pytest.mark.parametrize("weights", [[0.1], [0.1] * 3])
def test_decay_needs_one_weight_for_each_layer(weights):
    with pytest.raises(ValueError, match="weight decays for 2 layers"):
        training.decay(network_of([4, 3]), weights, "half")


@pytest.mark.parametrize(("convention", "strength"), [("half", DECAY / 2), ("per_unit", DECAY / 3), ("plain", DECAY)])
def test_a_softmax_classifier_reaches_the_minimum_of_its_convex_loss(convention, strength):
    network = network_of([3])
    result = fit(network, decay_convention=convention)
    options = {"gtol": 1e-9}
    wanted = minimize(softmax_loss, np.zeros(21), args=(strength,), jac=True, method="BFGS", options=options)
    assert result.converged
    assert result.history[-1].loss == pytest.approx(wanted.fun, abs=1e-9)
    assert network[1].weight.detach().numpy().ravel() == pytest.approx(wanted.x[:18], abs=1e-3)


def test_the_default_convention_is_half():
    one, other = network_of([3]), network_of([3])
    fit(one)
    fit(other, decay_convention="half")
    assert torch.equal(one[1].weight, other[1].weight)


def test_the_gradient_is_below_the_tolerance_when_converged():
    network = network_of([4, 3])
    result = fit(network, gradient_tolerance=1e-4)
    assert result.converged
    loss = torch.nn.functional.cross_entropy(network(IMAGES), LABELS) + training.decay(network, [DECAY] * 2, "half")
    gradients = torch.autograd.grad(loss, network.parameters())
    assert max(part.abs().max().item() for part in gradients) <= 1e-4
    assert result.history[-1].gradient_norm == pytest.approx(sum(part.square().sum() for part in gradients).sqrt().item())


def test_the_last_state_is_that_of_the_trained_network():
    network = network_of([4, 3])
    last = fit(network).history[-1]
    loss = torch.nn.functional.cross_entropy(network(IMAGES), LABELS) + training.decay(network, [DECAY] * 2, "half")
    assert last.loss == pytest.approx(loss.item(), rel=1e-12)
    assert last.error == pytest.approx((network(IMAGES).argmax(1) != LABELS).double().mean().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_never_rises_and_evaluations_are_counted(dtype):
    history = fit(network_of([8, 3], dtype), weight_decay=[1e-5] * 2, max_iterations=100).history
    losses = [state.loss for state in history]
    assert (np.diff(losses) <= 1e-6 * losses[0] * (dtype == torch.float32)).all()
    assert (np.diff([state.evaluations for state in history]) >= 1).all()
    assert history[0].evaluations >= 2  # one at the start, and at least one for the first iteration


@pytest.mark.parametrize("limit", [1, 5])
def test_the_history_is_as_long_as_the_iterations_that_were_allowed(limit):
    result = fit(network_of([8, 3]), max_iterations=limit, gradient_tolerance=1e-12)
    assert len(result.history) == limit
    assert not result.converged


def test_training_that_rounding_stops_has_not_converged_and_says_why():
    # No gradient this small can be reached: the end is where rounding stops every step.
    result = fit(network_of([3], torch.float32), gradient_tolerance=1e-12)
    assert len(result.history) < 2000
    assert not result.converged
    assert result.message


def test_training_lowers_the_loss_and_its_error_is_the_training_error():
    history = fit(network_of([12, 3]), weight_decay=[0.0, 0.0], max_iterations=300).history
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].error < history[0].error
    assert all(60 * state.error == pytest.approx(round(60 * state.error)) for state in history)


def test_the_same_start_gives_the_same_bytes_twice():
    one, other = network_of([8, 3], torch.float32), network_of([8, 3], torch.float32)
    assert fit(one, max_iterations=50) == fit(other, max_iterations=50)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_every_iteration_is_reported():
    lines = []
    result = fit(network_of([3]), max_iterations=5, report=lambda text, *values: lines.append(text % values))
    assert [line.split(":")[0] for line in lines] == [f"iteration {n + 1}" for n in range(len(result.history))]


# --- The loss of all images at once, added up over parts ---


@pytest.mark.parametrize("part", [1000, 60, 59, 7, 1])
@pytest.mark.parametrize("convention", ["half", "per_unit", "plain"])
def test_the_total_loss_and_its_gradient_are_those_of_all_images_whatever_the_parts(monkeypatch, part, convention):
    monkeypatch.setattr(training, "_PART", {"cpu": part})
    network = network_of([4, 3])
    for number, parameter in enumerate(network.parameters()):  # biases too, which start at 0
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    logits = network(IMAGES)
    loss = torch.nn.functional.cross_entropy(logits, LABELS)
    for layer, rate in ((network[1], 0.1), (network[3], 0.02)):
        divisor = {"half": 2, "per_unit": layer.out_features, "plain": 1}[convention]
        loss = loss + rate / divisor * layer.weight.square().sum()
    gradient = torch.cat([values.flatten() for values in torch.autograd.grad(loss, network.parameters())])
    state = training.total_loss(network, IMAGES, LABELS, [0.1, 0.02], convention)
    assert state.loss == pytest.approx(loss.item(), rel=1e-12)
    assert state.error == pytest.approx((logits.argmax(1) != LABELS).double().mean().item())
    assert state.gradient.numpy() == pytest.approx(gradient.numpy(), rel=1e-10, abs=1e-14)
    assert not state.gradient.requires_grad


# --- Minibatches ---

# Two lines part three kinds of images: what their first, and else their last, pixel says.
SEPARABLE = torch.where(IMAGES[:, 0, 0] > 0.5, 0, torch.where(IMAGES[:, 1, 2] > 0.5, 1, 2))
BATCHES = {"weight_decay": [0.0, 0.0], "size": 16, "epochs": 3, "learning_rate": 0.01, "seed": 5}


class Watched(torch.nn.Module):
    """Keeps what passes: the rows of IMAGES in every training step, and the weights before it."""

    def __init__(self, network):
        super().__init__()
        self.network, self.rows, self.weights, self.modes = network, [], [], []

    def forward(self, images):
        self.modes.append(self.training)
        if self.training:
            self.rows.append([int((image == IMAGES).all((1, 2)).nonzero()) for image in images])
            self.weights.append(self.network[1].weight.detach().clone())
        return self.network(images)


def in_minibatches(network, labels=SEPARABLE, **changes):
    images = IMAGES.to(next(network.parameters()).dtype)
    return training.fit_in_minibatches(network, images, labels, **(BATCHES | changes))


def dropping(rate, dtype=torch.float64, units=(12, 3)):
    network = network_of(units, dtype)
    return torch.nn.Sequential(*network[:-1], torch.nn.Dropout(rate), network[-1])


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_minibatches_learn_a_separable_problem(rate):
    network = dropping(rate, units=(20, 3))
    history = in_minibatches(network, epochs=60, learning_rate=0.1).history
    assert history[-1].loss < 0.2 * history[0].loss
    assert history[0].error > 0.2
    assert history[-1].error <= 0.05
    assert (network(IMAGES).argmax(1) != SEPARABLE).double().mean().item() == pytest.approx(history[-1].error)


@pytest.mark.parametrize("epochs", [1, 4])
def test_minibatches_leave_one_record_an_epoch_and_never_say_converged(epochs):
    # Nor where there is nothing to learn: without a label's influence the gradient of the last layer soon vanishes.
    result = in_minibatches(dropping(0.2), torch.zeros_like(LABELS), epochs=epochs, learning_rate=1.0)
    assert len(result.history) == epochs
    assert [state.evaluations for state in result.history] == list(range(1, epochs + 1))
    assert not result.converged
    assert f"{epochs} epochs" in result.message


def test_minibatches_report_every_epoch():
    lines = []
    result = in_minibatches(dropping(0.2), report=lambda text, *values: lines.append(text % values))
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert f"{result.history[-1].loss:.6f}" in lines[-1]


@pytest.mark.parametrize("convention", ["half", "plain"])
def test_the_record_of_an_epoch_is_of_all_images_without_dropout(convention):
    network = dropping(0.5)
    last = in_minibatches(network, weight_decay=[0.02, 0.03], decay_convention=convention).history[-1]
    assert not network.training
    assert not any(layer.training for layer in network)
    loss = torch.nn.functional.cross_entropy(network(IMAGES), SEPARABLE)
    loss = loss + training.decay(network, [0.02, 0.03], convention)
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, network.parameters())])
    assert last.loss == pytest.approx(loss.item(), rel=1e-12)
    assert last.error == pytest.approx((network(IMAGES).argmax(1) != SEPARABLE).double().mean().item())
    assert last.gradient_norm == pytest.approx(gradient.norm().item())
    assert last.gradient_max == pytest.approx(gradient.abs().max().item())


def test_minibatches_leave_torchs_own_generator_as_it_was():
    network = dropping(0.5)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    in_minibatches(network)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_minibatches_with_the_same_seed_give_the_same_bytes_whatever_was_drawn_before(dtype):
    one, other = dropping(0.5, dtype), dropping(0.5, dtype)
    torch.manual_seed(1)
    record = in_minibatches(one)
    torch.manual_seed(2)
    assert in_minibatches(other) == record
    assert torch.equal(weights(one), weights(other))
    assert weights(one).dtype == dtype


def test_minibatches_with_another_seed_come_in_another_order():
    one, other = dropping(0.0), dropping(0.0)
    in_minibatches(one)
    in_minibatches(other, seed=6)
    assert (weights(one) - weights(other)).abs().max() > 1e-4


def test_dropout_has_the_seed_too():
    # Of images that are all the same, the order does not matter.
    same, ends = IMAGES[:1].expand(60, -1, -1), []
    for rate, seed in ((0.0, 5), (0.0, 6), (0.5, 5), (0.5, 6)):
        network = dropping(rate)
        training.fit_in_minibatches(network, same, torch.zeros_like(LABELS), **(BATCHES | {"seed": seed}))
        ends.append(weights(network))
    assert torch.equal(ends[0], ends[1])
    assert (ends[2] - ends[3]).abs().max() > 1e-4


def test_the_order_of_the_images_does_not_depend_on_dropout():
    one, other = Watched(dropping(0.0)), Watched(dropping(0.5))
    in_minibatches(one)
    in_minibatches(other)
    assert one.rows == other.rows


def test_dropout_is_active_in_training():
    with_dropout, without, removed = dropping(0.5), dropping(0.0), network_of([12, 3])
    for network in (with_dropout, without, removed):
        in_minibatches(network)
    assert torch.equal(weights(without), weights(removed))
    assert (weights(with_dropout) - weights(without)).abs().max() > 1e-3


def test_every_epoch_has_every_image_once_in_another_order_and_in_training_mode():
    network = Watched(dropping(0.2))
    in_minibatches(network, size=16, epochs=3)
    assert [len(rows) for rows in network.rows] == [16, 16, 16, 12] * 3
    epochs = [list(chain(*network.rows[4 * k : 4 * k + 4])) for k in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(60))
    assert len({tuple(order) for order in [*epochs, range(60)]}) == 4
    assert network.modes == ([True] * 4 + [False]) * 3


def test_the_learning_rate_falls_to_nothing_over_all_epochs():
    network = Watched(network_of([12, 3]))
    in_minibatches(network, size=16, epochs=5, learning_rate=0.01)
    end = network.network[1].weight.detach()
    steps = [(b - a).abs().max().item() for a, b in zip(network.weights, [*network.weights[1:], end], strict=True)]
    assert len(steps) == 20
    assert steps[0] == pytest.approx(0.01, rel=0.01)  # Adam's first step is of the learning rate, whatever the gradient
    half = (1 + math.cos(math.pi * 10 / 20)) / 2
    assert steps[10] == pytest.approx(0.01 * half, rel=0.5)
    assert 0 < steps[-1] < 0.02 * steps[0]


def test_decay_is_counted_in_minibatches():
    decayed, free, none = (network_of([12, 3]) for _ in range(3))
    records = [
        in_minibatches(network, weight_decay=rates, epochs=20, learning_rate=0.03)
        for network, rates in ((decayed, [1.0, 0.0]), (free, [0.0, 0.0]), (none, [0.0, 1.0]))
    ]
    first, last = ([network[k].weight.norm().item() for network in (decayed, free, none)] for k in (1, 3))
    assert first[0] < 0.2 * min(first[1:])
    assert last[2] < 0.2 * min(last[:2])
    # In the record too.
    pure = torch.nn.functional.cross_entropy(decayed(IMAGES), SEPARABLE).item()
    assert records[0].history[-1].loss == pytest.approx(pure + decayed[1].weight.square().sum().item() / 2)
    assert records[1].history[-1].loss == pytest.approx(torch.nn.functional.cross_entropy(free(IMAGES), SEPARABLE).item())


def test_decay_in_minibatches_is_of_its_convention():
    changes = [{"decay_convention": "plain", "weight_decay": [0.1, 0.1]}, {"weight_decay": [0.2, 0.2]}]
    changes += [{"decay_convention": "per_unit", "weight_decay": [0.1 * 12, 0.1 * 3]}, {"weight_decay": [0.1, 0.1]}]
    ends = []
    for change in changes:
        network = network_of([12, 3])
        in_minibatches(network, **change)
        ends.append(weights(network))
    assert ends[0].numpy() == pytest.approx(ends[1].numpy(), abs=1e-9)
    assert ends[2].numpy() == pytest.approx(ends[1].numpy(), abs=1e-9)
    assert (ends[3] - ends[1]).abs().max() > 1e-3


def test_the_program_trains_a_network_with_dropout_in_minibatches(tmp_path):
    pixels = torch.randint(0, 256, (40, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    arrays = {"train/images": pixels, "train/labels": (pixels[:, 2, 3] > 127).to(torch.uint8)}
    artifacts.write(tmp_path / "data.h5", {key: Dataset(values, "some") for key, values in arrays.items()}, {})
    artifacts.write(tmp_path / "splits.h5", {"P1": Dataset(np.arange(10, 40), "indices")}, {})
    definition = {"kind": "convolutional", "channels": 2, "kernel": 3, "pool": 2, "units": [5, 3]}
    definition |= {"activation": "relu", "dropout": 0.5}
    decays, minibatches = [0.1, 0.2, 0.3], {"size": 8, "epochs": 3, "learning_rate": 0.01}
    settings = {
        "network": definition,
        "minibatches": minibatches,
        "training": {"decay_convention": "plain", "gradient_tolerance": 1e-5, "max_iterations": 2, "history": 10},
        "trained_on": "P1",
        "weight_decay": decays,
        "seed": 3,
        "device": "cpu",
        "threads": 1,
    }
    arguments = ["--data", tmp_path / "data.h5", "--splits", tmp_path / "splits.h5", "--output", tmp_path / "network.h5"]
    assert train.main([*map(str, arguments), "--settings", json.dumps(settings)]) == 0

    wanted = networks.build(definition, [6, 7])
    networks.initialise(wanted, torch.Generator().manual_seed(3))
    x, y = pixels[10:].float() / 255, torch.from_numpy(arrays["train/labels"].numpy()[10:]).long()
    options = {"weight_decay": decays, "decay_convention": "plain", "seed": 3} | minibatches
    record = training.fit_in_minibatches(wanted, x, y, **options)
    trained = networks.read(tmp_path / "network.h5")
    assert torch.equal(weights(trained), weights(wanted))
    with artifacts.read(tmp_path / "network.h5") as file:
        assert file["history/loss"][()].tolist() == [state.loss for state in record.history]
        assert not file["converged"][()]
        assert "pretraining" not in file
