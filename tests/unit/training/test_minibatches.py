"""Training in minibatches: its record, its randomness, its checkpoints, and the programs around it."""

import json
import math
import shutil
from itertools import chain

import numpy as np
import pytest
import torch
from test_convergence import IMAGES, LABELS, network_of
from torch.nn.functional import cross_entropy

from blindspots.networks import architectures
from blindspots.networks.dropout import Dropout
from blindspots.steps import artifacts, image_sets, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.checkpoints import Checkpoint
from blindspots.training import minibatches, perturbed
from blindspots.training.record import Trained
from blindspots.training.total_loss import decay
from scripts import train_network as train
from scripts import train_perturbed

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


def in_minibatches(network, labels=SEPARABLE, **changes) -> Trained:
    images = IMAGES.to(next(network.parameters()).dtype)
    return minibatches.fit(network, images, labels, **(BATCHES | changes)).trained


def dropping(rate, dtype=torch.float64, units=(12, 3)):
    network = network_of(units, dtype)
    return torch.nn.Sequential(*network[:-1], Dropout(rate), network[-1])


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


@pytest.mark.parametrize(
    ("epochs", "recorded"), [(3, [1, 2, 3]), (45, [*range(1, 46, 2)]), (60, [*range(3, 61, 3)])]
)
def test_of_many_epochs_some_twenty_are_on_record_the_last_one_among_them(epochs, recorded):
    network = dropping(0.0)
    history = in_minibatches(network, epochs=epochs).history
    assert [state.evaluations for state in history] == recorded
    assert history[-1].loss == pytest.approx(cross_entropy(network(IMAGES), SEPARABLE).item())


@pytest.mark.parametrize("epochs", [1, 4])
def test_minibatches_leave_one_record_an_epoch_and_never_say_converged(epochs):
    # Nor where there is nothing to learn: without a label's
    # influence the gradient of the last layer soon vanishes.
    result = in_minibatches(dropping(0.2), torch.zeros_like(LABELS), epochs=epochs, learning_rate=1.0)
    assert len(result.history) == epochs
    assert [state.evaluations for state in result.history] == list(range(1, epochs + 1))
    assert not result.converged
    assert f"{epochs} epochs" in result.message


def test_minibatches_report_what_is_on_record():
    lines = []
    result = in_minibatches(dropping(0.2), report=lambda text, *values: lines.append(text % values))
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    assert f"{result.history[-1].loss:.6f}" in lines[-1]


@pytest.mark.parametrize("convention", ["half", "plain"])
def test_the_record_of_an_epoch_is_of_all_images_without_dropout(convention):
    network = dropping(0.5)
    last = in_minibatches(network, weight_decay=[0.02, 0.03], decay_convention=convention).history[-1]
    assert not network.training
    assert not any(layer.training for layer in network)
    loss = torch.nn.functional.cross_entropy(network(IMAGES), SEPARABLE)
    loss = loss + decay(network, [0.02, 0.03], convention)
    assert last.loss == pytest.approx(loss.item(), rel=1e-12)
    assert last.error == pytest.approx((network(IMAGES).argmax(1) != SEPARABLE).double().mean().item())


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
        minibatches.fit(network, same, torch.zeros_like(LABELS), **(BATCHES | {"seed": seed}))
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
    steps = [
        (b - a).abs().max().item() for a, b in zip(network.weights, [*network.weights[1:], end], strict=True)
    ]
    assert len(steps) == 20
    assert steps[0] == pytest.approx(
        0.01, rel=0.01
    )  # Adam's first step is of the learning rate, whatever the gradient
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
    assert records[1].history[-1].loss == pytest.approx(
        torch.nn.functional.cross_entropy(free(IMAGES), SEPARABLE).item()
    )


def test_decay_in_minibatches_is_of_its_convention():
    changes = [{"decay_convention": "plain", "weight_decay": [0.1, 0.1]}, {"weight_decay": [0.2, 0.2]}]
    changes += [
        {"decay_convention": "per_unit", "weight_decay": [0.1 * 12, 0.1 * 3]},
        {"weight_decay": [0.1, 0.1]},
    ]
    ends = []
    for change in changes:
        network = network_of([12, 3])
        in_minibatches(network, **change)
        ends.append(weights(network))
    assert ends[0].numpy() == pytest.approx(ends[1].numpy(), abs=1e-9)
    assert ends[2].numpy() == pytest.approx(ends[1].numpy(), abs=1e-9)
    assert (ends[3] - ends[1]).abs().max() > 1e-3


# --- Checkpoints ---


class Killed(BaseException):
    pass


class Dying(Checkpoint):
    """Keeps every state, and kills the training after so many."""

    def __init__(self, path, identity="this", after=None):
        super().__init__(path, identity, seconds=0)
        self.after, self.loads = after, 0

    def load(self):
        kept = super().load()
        self.loads += kept is not None
        return kept

    def save(self, state):
        super().save(state)
        if len(state["states"]) == self.after:
            raise Killed


def pools(network):
    options = {"norms": [0.5, 0.5], "weight": 1.0, "size": 20, "replaced": 0.7, "batch": 7, "amplified": True}
    return perturbed.term({"kind": "pools"} | options, network, IMAGES, SEPARABLE, seed=4)


def noise(network):
    return perturbed.term(
        {"kind": "noise", "norms": [0.5, 0.5], "weight": 1.0}, network, IMAGES, SEPARABLE, seed=4
    )


@pytest.mark.parametrize(("epochs", "after"), [(4, 1), (4, 2), (4, 3), (42, 3)])
@pytest.mark.parametrize("make_term", [None, noise, pools])
def test_a_killed_training_goes_on_to_the_very_end_that_it_would_have_had(tmp_path, make_term, epochs, after):
    def trained(checkpoint):
        network = dropping(0.5 if make_term is None else 0.0)
        term = make_term and make_term(network)
        kept = {"term": term, "checkpoint": checkpoint, "watched": (IMAGES[:30], SEPARABLE[:30])}
        return minibatches.fit(network, IMAGES, SEPARABLE, **(BATCHES | {"epochs": epochs}), **kept), weights(
            network
        )

    whole, end = trained(None)
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Killed):
        trained(Dying(path, after=after))
    resumed = Dying(path)
    again, same = trained(resumed)
    assert resumed.loads == 1
    assert again == whole
    assert torch.equal(same, end)


def test_a_checkpoint_of_something_else_is_not_gone_on_from(tmp_path):
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Killed):
        minibatches.fit(dropping(0.0), IMAGES, SEPARABLE, **BATCHES, checkpoint=Dying(path, "that", after=2))
    assert Dying(path, "this").load() is None
    assert len(Dying(path, "that").load()["states"]) == 2


def test_a_checkpoint_is_kept_now_and_then_and_removed_in_the_end(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one", "this", seconds=1000)
    checkpoint.save({"a": 1})
    assert checkpoint.load() is None
    checkpoint = Checkpoint(tmp_path / "one", "this", seconds=0)
    checkpoint.save({"a": torch.arange(3)})
    assert checkpoint.load()["a"].tolist() == [0, 1, 2]
    checkpoint.remove()
    assert not list(tmp_path.iterdir())
    checkpoint.remove()


@pytest.mark.parametrize("place", [5, -40])  # in the hash, in the tensor
def test_a_damaged_checkpoint_is_told_and_not_gone_on_from(tmp_path, caplog, place):
    checkpoint = Checkpoint(tmp_path / "one", "this", seconds=0)
    checkpoint.save({"a": torch.ones(2000)})
    content = bytearray(checkpoint.path.read_bytes())
    content[place] ^= 1
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None
    assert f"{checkpoint.path} is damaged" in caplog.text
    checkpoint.path.write_bytes(content[:-100])
    assert checkpoint.load() is None


# --- The programs ---


def test_the_watched_images_change_nothing_and_have_their_error_on_record():
    one, other = dropping(0.3), dropping(0.3)
    fitted = minibatches.fit(one, IMAGES, SEPARABLE, **BATCHES, watched=(IMAGES[:20], LABELS[:20]))
    assert fitted.trained == in_minibatches(other)
    assert torch.equal(weights(one), weights(other))
    assert len(fitted.watched) == BATCHES["epochs"]
    assert fitted.watched[-1] == pytest.approx(
        (one(IMAGES[:20]).argmax(1) != LABELS[:20]).double().mean().item()
    )


@pytest.fixture
def data(tmp_path):
    """The arguments for a small data set of 40 images, of which 30 are trained on."""
    pixels = torch.randint(0, 256, (40, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    arrays = {"images": pixels, "labels": (pixels[:, 2, 3] > 127).to(torch.uint8)}
    parts = {
        f"{part}/{key}": Array(values, "some") for part in ("train", "test") for key, values in arrays.items()
    }
    artifacts.write(tmp_path / "data.h5", parts, {})
    artifacts.write(tmp_path / "splits.h5", {"P1": Array(np.arange(10, 40), "indices")}, {})
    return ["--data", str(tmp_path / "data.h5"), "--splits", str(tmp_path / "splits.h5")]


SETTINGS = {
    "minibatches": {"size": 8, "epochs": 3, "learning_rate": 0.01},
    "training": {"decay_convention": "plain", "gradient_tolerance": 1e-5, "max_iterations": 2, "history": 10},
    "trained_on": "P1",
    "weight_decay": [0.1, 0.2, 0.3],
    "seed": 3,
    "device": "cpu",
}
CONV = {
    "kind": "convolutional",
    "channels": 2,
    "kernel": 3,
    "pool": 2,
    "units": [5, 3],
    "activation": "relu",
    "dropout": 0.5,
}
DROPPING = {
    "kind": "fully_connected",
    "units": [5, 4, 3],
    "activation": "sigmoid",
    "dropout": [0.1, 0.2, 0.3],
}
PERTURBED = {
    "kind": "pools",
    "norms": [0.5, 0.5, 0.5],
    "weight": 0.5,
    "amplified": True,
    "size": 16,
    "replaced": 1.0,
    "batch": 4,
}


@pytest.mark.parametrize(
    ("definition", "perturbation"), [(CONV, None), (DROPPING, None), (DROPPING | {"dropout": []}, PERTURBED)]
)
def test_the_programs_train_a_network_in_minibatches(tmp_path, data, definition, perturbation):
    settings = SETTINGS | {"network": definition} | ({"perturbed": perturbation} if perturbation else {})
    program = train_perturbed if perturbation else train
    output = tmp_path / "network.h5"
    assert program.main([*data, "--output", str(output), "--settings", json.dumps(settings)]) == 0
    assert not output.with_suffix(".checkpoint").exists()

    wanted = architectures.build(definition, [6, 7])
    architectures.initialise(wanted, torch.Generator().manual_seed(3))
    pixels, labels = image_sets.read(tmp_path / "data.h5", "train")
    pixels, labels = torch.from_numpy(pixels), torch.from_numpy(labels).long()
    x, y = pixels[10:], labels[10:]
    options = {"weight_decay": settings["weight_decay"], "decay_convention": "plain", "seed": 3} | settings[
        "minibatches"
    ]
    term = perturbed.term(perturbation, wanted, x, y, seed=3) if perturbation else None
    fitted = minibatches.fit(wanted, x, y, **options, term=term, watched=(pixels, labels))
    trained = trained_networks.read(output)
    assert torch.equal(weights(trained), weights(wanted))
    with artifacts.read(output) as file:
        assert file["history/loss"][()].tolist() == [state.loss for state in fitted.trained.history]
        assert file["history/error_test"][()].tolist() == fitted.watched
        assert not file["converged"][()]
        assert "pretraining" not in file


def test_a_killed_program_goes_on_with_the_same_settings_alone(tmp_path, data, monkeypatch, capsys):
    settings = SETTINGS | {"network": DROPPING}

    def run(name, **changes):
        arguments = [*data, "--output", str(tmp_path / name), "--settings", json.dumps(settings | changes)]
        return train.main(arguments)

    assert run("whole.h5") == 0
    monkeypatch.setattr(train, "Checkpoint", lambda path, identity: Dying(path, identity, after=2))
    with pytest.raises(Killed):
        run("killed.h5")
    assert (tmp_path / "killed.checkpoint").exists()
    resumed = []
    monkeypatch.setattr(
        train, "Checkpoint", lambda path, identity: resumed.append(Dying(path, identity)) or resumed[-1]
    )
    shutil.copy(tmp_path / "killed.checkpoint", tmp_path / "other.checkpoint")
    assert run("killed.h5") == 0
    assert run("other.h5", seed=4) == 0
    assert [checkpoint.loads for checkpoint in resumed] == [1, 0]
    assert artifacts.identity(tmp_path / "killed.h5") == artifacts.identity(tmp_path / "whole.h5")
