"""The sparse autoencoder: its objective against independent formulations, and what training it comes to."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr

from blindspots.networks import architectures
from blindspots.parallel import chunks
from blindspots.solvers.limited_memory import Point
from blindspots.steps import artifacts, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.training import autoencoder, samples
from scripts import train_network as train

# Images of few causes, so that a few hidden units can tell them.
_CAUSES = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
_PATTERNS = torch.randn(2, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
IMAGES = (2 * _CAUSES @ _PATTERNS).sigmoid().reshape(40, 3, 4)
OPTIONS = {"sparsity": 0.2, "sparsity_weight": 0.7, "weight_decay": 0.03}
LIMITS = {"gradient_tolerance": 1e-5, "max_iterations": 150, "history": 10}


def encoder_of(units=5, dtype=torch.float64, seed=0):
    network = architectures.fully_connected([3, 4], [units, 3], "sigmoid")[:3]
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    return network.to(dtype)


def pretrain(encoder, seed=7, **changes):
    images = IMAGES.to(encoder[1].weight.dtype)
    return autoencoder.pretrain(
        encoder, images, **(OPTIONS | LIMITS | changes), generator=torch.Generator().manual_seed(seed)
    )


def intercepted(monkeypatch, encoder, **changes):
    """The objective and the options that `pretrain` gives to its method."""
    calls = []
    monkeypatch.setitem(
        autoencoder.METHODS, "kept", lambda objective, **options: calls.append((objective, options))
    )
    pretrain(encoder, **changes, method="kept")
    return calls[0]


def by_hand(parameters, sparsity, sparsity_weight, weight_decay):
    """The loss of the documented formula, and the root mean square misfit, in numpy."""
    w, b, v, a = (parameter.detach().double().numpy() for parameter in parameters)
    x = IMAGES.reshape(40, 12).numpy()
    hidden = expit(x @ w.T + b)
    misfit = expit(hidden @ v.T + a) - x
    active = hidden.mean(0)
    divergence = rel_entr(sparsity, active) + rel_entr(1 - sparsity, 1 - active)
    squares = np.square(w).sum() + np.square(v).sum()
    loss = (
        0.5 * np.square(misfit).sum(1).mean()
        + weight_decay / 2 * squares
        + sparsity_weight * divergence.sum()
    )
    return loss, math.sqrt(np.square(misfit).mean())


def by_autograd(parameters, sparsity, sparsity_weight, weight_decay):
    """The gradient of the documented formula, of all images at once."""
    w, b, v, a = parameters
    x = IMAGES.reshape(40, 12)
    hidden = torch.sigmoid(x @ w.T + b)
    active = hidden.mean(0)
    hidden_of_rho = torch.distributions.Bernoulli(torch.full_like(active, sparsity))
    divergence = torch.distributions.kl_divergence(hidden_of_rho, torch.distributions.Bernoulli(active)).sum()
    loss = (torch.sigmoid(hidden @ v.T + a) - x).square().sum(1).mean() / 2 + sparsity_weight * divergence
    loss = loss + weight_decay / 2 * (w.square().sum() + v.square().sum())
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


def mean_activations(encoder):
    with torch.no_grad():
        return encoder(IMAGES.to(encoder[1].weight.dtype)).mean(0)


@pytest.mark.parametrize("part", [1000, 40, 20, 7, 1])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sparsity": 0.02, "sparsity_weight": 5.0, "weight_decay": 0.0},
        {"sparsity_weight": 0.0, "weight_decay": 1.0},
    ],
)
def test_the_loss_and_its_gradient_are_those_of_the_formula_however_the_images_are_split(
    monkeypatch, part, changes
):
    monkeypatch.setattr(chunks, "_LARGEST", {"cpu": part})
    monkeypatch.setattr(chunks, "_SMALLEST", 1)
    loss_of, _ = intercepted(monkeypatch, encoder_of(), **changes)
    parameters = loss_of.parameters
    options = OPTIONS | changes
    for seed in (2, 3):
        for number, parameter in enumerate(parameters):  # biases too, which start at 0
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(10 * seed + number))
        point = Point.of(loss_of.of_all, loss_of.values)
        state = loss_of.state(point)
        loss, error = by_hand(parameters, **options)
        assert state.loss == pytest.approx(loss, rel=1e-11)
        assert state.error == pytest.approx(error, rel=1e-11)
        gradient = by_autograd(parameters, **options)
        assert state.gradient.numpy() == pytest.approx(gradient.numpy(), rel=1e-9, abs=1e-12)


def test_parameters_are_the_encoders_and_a_decoder_of_glorots_weights_that_is_no_transpose(monkeypatch):
    encoder = encoder_of(units=400)
    loss, _ = intercepted(monkeypatch, encoder)
    w, b, v, a = loss.parameters
    assert w is encoder[1].weight
    assert b is encoder[1].bias
    assert v.shape == (12, 400)
    assert a.shape == (12,)
    limit = math.sqrt(6 / 412)
    assert 0.98 * limit <= v.abs().max().item() <= limit
    assert not a.any()
    assert not torch.allclose(v, w.T, atol=0.01)


def test_the_limits_are_passed_on(monkeypatch):
    def report(*values):
        pass

    limits = {"gradient_tolerance": 0.25, "max_iterations": 3, "history": 4, "report": report}
    _, options = intercepted(monkeypatch, encoder_of(), **limits)
    assert options == limits | {"error": "rms of x̂ - x"}


@pytest.mark.parametrize("rho", [0.1, 0.6])
def test_mean_activations_end_near_the_sparsity_when_its_weight_is_large(rho):
    encoder = encoder_of()
    assert ((mean_activations(encoder) - rho).abs() > 0.1).all()  # so that they have some way to go
    pretrain(encoder, sparsity=rho, sparsity_weight=50.0)
    assert mean_activations(encoder).numpy() == pytest.approx(np.full(5, rho), abs=0.01)


def test_without_a_weight_the_sparsity_changes_nothing():
    one, other = encoder_of(), encoder_of()
    pretrain(one, sparsity=0.1, sparsity_weight=0.0)
    pretrain(other, sparsity=0.6, sparsity_weight=0.0)
    assert torch.equal(one[1].weight, other[1].weight)
    assert (mean_activations(one) - 0.1).abs().max() > 0.1


def test_the_reconstruction_error_falls_below_that_of_the_mean_image():
    history = pretrain(encoder_of(), sparsity_weight=0.0, weight_decay=1e-4, max_iterations=300).history
    assert history[-1].error < 0.3 * history[0].error
    assert history[-1].error < 0.5 * (IMAGES - IMAGES.mean(0)).square().mean().sqrt().item()
    assert (np.diff([state.loss for state in history]) <= 0).all()


def test_decay_makes_smaller_weights():
    sizes = []
    for weight in (1e-4, 1e-1):
        encoder = encoder_of()
        pretrain(encoder, weight_decay=weight)
        sizes.append(encoder[1].weight.norm().item())
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dtype):
    one, again, other = (encoder_of(dtype=dtype) for _ in range(3))
    torch.manual_seed(0)
    record = pretrain(one, max_iterations=20)
    torch.manual_seed(1)  # what building a layer draws from torch's own generator does not matter
    assert pretrain(again, max_iterations=20).history == record.history
    pretrain(other, max_iterations=20, seed=8)
    for key, values in one.state_dict().items():
        assert values.dtype == dtype
        assert torch.equal(values, again.state_dict()[key])
        assert not torch.allclose(values, other.state_dict()[key])


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_weights_have_the_same_bytes_for_any_number_of_threads(monkeypatch, threads):
    monkeypatch.setattr(chunks, "_SMALLEST", 1)
    one, other = encoder_of(dtype=torch.float32), encoder_of(dtype=torch.float32)
    assert pretrain(one, max_iterations=20) == pretrain(other, max_iterations=20, threads=threads)
    assert torch.equal(one[1].weight, other[1].weight)


def test_the_first_iterations_are_on_samples_of_many_images(monkeypatch):
    monkeypatch.setattr(samples, "_FEW_THEN_ALL", ((8, 5), (16, 5), (17, 5)))  # the last are too many of 40
    sizes = []
    of_sample = autoencoder.Reconstruction.of_sample
    monkeypatch.setattr(
        autoencoder.Reconstruction,
        "of_sample",
        lambda loss, rows: sizes.append(len(rows)) or of_sample(loss, rows),
    )
    result = pretrain(encoder_of(), max_iterations=30)
    assert sizes == [8, 16]
    assert len(result.history) == 30 - 10 + 1
    assert result.history[0].evaluations < 1 + 2 * 5 * (8 + 16) / 40
    assert (
        result.history[0].loss < pretrain(encoder_of(), max_iterations=2, method="full_batch").history[0].loss
    )


def test_the_encoder_is_trained_in_place():
    encoder = encoder_of()
    before = {key: values.clone() for key, values in encoder.state_dict().items()}
    weight, count = encoder[1].weight, len(encoder)
    pretrain(encoder, max_iterations=5)
    assert encoder[1].weight is weight
    assert len(encoder) == count
    for key, values in encoder.state_dict().items():
        assert not torch.equal(values, before[key])


@pytest.mark.parametrize("name", ["working_set", "full_batch"])
@pytest.mark.parametrize("limit", [1, 30])
def test_the_last_record_is_that_of_the_end(monkeypatch, limit, name):
    ends = []
    method = autoencoder.METHODS[name]

    def kept(loss, **options):
        ends.append(loss.parameters)
        return method(loss, **options)

    monkeypatch.setitem(autoencoder.METHODS, name, kept)
    result = pretrain(encoder_of(), max_iterations=limit, method=name)
    last, (parameters,) = result.history[-1], ends
    loss, error = by_hand(parameters, **OPTIONS)
    gradient = by_autograd(parameters, **OPTIONS)
    assert len(result.history) == limit + (name == "working_set")  # which has the start, too
    assert last.loss == pytest.approx(loss, rel=1e-11)
    assert last.error == pytest.approx(error, rel=1e-11)
    assert last.gradient_max == pytest.approx(gradient.abs().max().item(), rel=1e-8)
    assert last.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-8)


def test_it_converges_where_the_gradient_is_below_the_tolerance():
    result = pretrain(encoder_of(), gradient_tolerance=1e-3, max_iterations=1000)
    assert result.converged
    assert result.history[-1].gradient_max <= 1e-3
    assert not pretrain(encoder_of(), gradient_tolerance=1e-12, max_iterations=3).converged


def test_the_program_trains_the_layers_above_and_leaves_the_pretrained_one(tmp_path):
    pixels = (255 * IMAGES).round().to(torch.uint8)
    labels = (_CAUSES[:, 0] > 0).to(torch.uint8) + (_CAUSES[:, 1] > 0).to(torch.uint8)
    arrays = {"train/images": pixels, "train/labels": labels}
    artifacts.write(tmp_path / "data.h5", {key: Array(values, "some") for key, values in arrays.items()}, {})
    artifacts.write(tmp_path / "splits.h5", {"P1": Array(np.arange(30), "indices")}, {})
    options = {"method": "working_set", "gradient_tolerance": 1e-5, "max_iterations": 40, "history": 10}
    settings = {
        "network": {"kind": "fully_connected", "units": [5, 3], "activation": "sigmoid"},
        "pretraining": OPTIONS | {"max_iterations": 25},
        "training": options | {"decay_convention": "half"},
        "trained_on": "P1",
        "weight_decay": [1e-3],
        "seed": 3,
        "device": "cpu",
    }
    arguments = [
        "--data",
        tmp_path / "data.h5",
        "--splits",
        tmp_path / "splits.h5",
        "--output",
        tmp_path / "network.h5",
    ]
    assert train.main([*map(str, arguments), "--settings", json.dumps(settings)]) == 0

    x, y = pixels[:30].float() / 255, labels[:30].long()
    wanted = architectures.fully_connected([3, 4], [5, 3], "sigmoid")
    generator = torch.Generator().manual_seed(3)
    architectures.initialise(wanted, generator)
    start = wanted[3].weight.clone()
    limits = options | settings["pretraining"]
    pretrained = autoencoder.pretrain(wanted[:3], x, **limits, generator=generator)
    trained = trained_networks.read(tmp_path / "network.h5")
    assert torch.equal(trained[1].weight, wanted[1].weight)
    assert torch.equal(trained[1].bias, wanted[1].bias)
    assert not torch.allclose(trained[3].weight, start)
    with artifacts.read(tmp_path / "network.h5") as file:
        assert file["pretraining/loss"][()].tolist() == [state.loss for state in pretrained.history]
        assert len(file["pretraining/error"]) == 26
        assert 1 < len(file["history/loss"]) <= 41
        share = (trained(x).argmax(1) != y).double().mean().item()
        assert file["history/error"][-1] == pytest.approx(share)
        # The classifier on top alone decays.
        loss = torch.nn.functional.cross_entropy(trained(x), y) + 1e-3 / 2 * trained[3].weight.square().sum()
        assert file["history/loss"][-1] == pytest.approx(loss.item(), rel=1e-5)
