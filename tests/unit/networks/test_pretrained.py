"""Networks that come trained: their layers, and taking over weights from files with batch normalisations."""

import hashlib
import io
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import conv2d

from blindspots.networks import architectures
from blindspots.networks.architectures import BATCH_NORM_EPSILON, Normalise, load_matching_weights
from blindspots.steps import artifacts, trained_networks
from scripts import load_network as load

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.25]
LITE = {"kind": "efficientnet_lite", "classes": 7, "width": 1.0, "depth": 1.0, "mean": MEAN, "std": STD}
ALEXNET = {"kind": "alexnet", "classes": 7, "mean": MEAN, "std": STD}


def test_normalisation_is_by_colour_and_bounds_itself():
    images = torch.rand(2, 3, 4, 5)
    layer = Normalise(MEAN, STD)
    for colour in range(3):
        assert torch.allclose(layer(images)[:, colour], (images[:, colour] - MEAN[colour]) / STD[colour])
    assert layer.lipschitz() == pytest.approx(4)
    assert not layer.state_dict()  # it is of the definition, not of the weights


@pytest.mark.parametrize(
    ("width", "depth", "convolutions", "parameters"),
    # Of Lite0, 1 and 2 with 1,000 classes: the published 4.65, 5.42
    # and 6.09 million without batch normalisations' own.
    [(1.0, 1.0, 49, 4_631_000), (1.0, 1.1, 64, 5_389_848), (1.1, 1.2, 64, 6_063_024)],
)
def test_efficientnet_lite_has_the_published_sizes(width, depth, convolutions, parameters):
    network = architectures.build(LITE | {"classes": 1000, "width": width, "depth": depth}, (3, 224, 224))
    layers = architectures.weight_layers(network)
    assert [isinstance(layer, nn.Conv2d) for layer in layers] == [True] * convolutions + [False]
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("size", [32, 33, 50, 63, 64])
def test_efficientnet_lite_halves_five_times_rounding_up(size):
    network = architectures.build(LITE, (3, size, size)).eval()
    seen = []
    architectures.weight_layers(network)[-2].register_forward_hook(
        lambda layer, inputs, output: seen.append(output.shape[-1])
    )
    assert network(torch.rand(1, 3, size, size)).shape == (1, 7)
    assert seen == [math.ceil(size / 32)]


def test_padding_keeps_the_size_and_puts_what_is_odd_below_and_to_the_right():
    from blindspots.networks.efficientnet_lite import _same_convolution

    convolution = _same_convolution(1, 1, kernel=3, stride=2, size=(8, 7))
    padded = nn.ZeroPad2d((1, 1, 0, 1))  # left, right, above, below
    images = torch.rand(1, 1, 8, 7)
    wanted = conv2d(padded(images), convolution.weight, convolution.bias, stride=2)
    assert wanted.shape == (1, 1, 4, 4)
    torch.testing.assert_close(convolution(images), wanted)


def test_a_block_adds_its_input_where_the_shape_stays():
    from blindspots.networks.efficientnet_lite import Block

    same, wider, halved = (
        Block(4, 4, 3, 1, 6, (8, 8)),
        Block(4, 5, 3, 1, 6, (8, 8)),
        Block(4, 4, 3, 2, 6, (8, 8)),
    )
    assert [block.skips for block in (same, wider, halved)] == [True, False, False]
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(same(x), x + same.residual(x))
    assert torch.equal(wider(x), wider.residual(x))


def with_batch_norm(seed=0):
    """A small network of two convolutions, each followed by a batch normalisation that has seen something."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4, eps=BATCH_NORM_EPSILON),
        nn.ReLU6(),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4, eps=BATCH_NORM_EPSILON),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
    )
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return network.eval()


def without_batch_norm():
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU6(),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
    ]
    return nn.Sequential(*layers).eval()


def test_weights_are_taken_over_with_the_batch_normalisations_folded_in():
    other, own = with_batch_norm(), without_batch_norm()
    load_matching_weights(own, other.state_dict())
    images = torch.rand(6, 3, 8, 8)
    assert torch.allclose(own(images), other(images), atol=1e-5)
    assert not torch.allclose(own(images), with_batch_norm(1)(images), atol=1e-2)


def test_weights_that_do_not_fit_are_refused_with_the_place():
    weights = with_batch_norm().state_dict()
    with pytest.raises(
        ValueError, match=r"tensor 1 of 6 has shape \(4, 3, 3, 3\); the network has \(5, 3, 3, 3\) there"
    ):
        load_matching_weights(nn.Sequential(nn.Conv2d(3, 5, 3)), weights)
    with pytest.raises(
        ValueError, match=r"tensor 3 of 2 has shape none; the network has \(4, 1, 3, 3\) there"
    ):
        load_matching_weights(without_batch_norm(), nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict())


def saved(network, path):
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def loaded(folder, definition, digest, monkeypatch):
    monkeypatch.setattr(load.downloads, "default_cache", lambda: folder / "cache")
    settings = {
        "network": definition,
        "weights": {"name": "w.pth", "sha256": digest},
        "image_shape": [3, 64, 64],
    }
    sources = {"sources": [{"kind": "folder", "path": str(folder)}]}
    arguments = [
        "--output",
        str(folder / "n.h5"),
        "--settings",
        json.dumps(settings),
        "--unrecorded",
        json.dumps(sources),
    ]
    return load.main(arguments)


def test_the_program_loads_verified_weights(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = architectures.build(ALEXNET, (3, 64, 64))
    digest = saved(network[1], tmp_path / "w.pth")  # as torchvision has it, without the normalisation
    assert loaded(tmp_path, ALEXNET, digest, monkeypatch) == 0
    again = trained_networks.read(tmp_path / "n.h5")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images), architectures.frozen(network)(images))
    with artifacts.read(tmp_path / "n.h5") as file:
        assert file["image_shape"][()].tolist() == [3, 64, 64]


def test_weights_with_another_hash_are_refused(tmp_path, monkeypatch, capfd):
    saved(nn.Linear(2, 2), tmp_path / "w.pth")
    assert loaded(tmp_path, ALEXNET, "0" * 64, monkeypatch) == 1
    assert "w.pth has SHA-256" in capfd.readouterr().err
    assert not (tmp_path / "n.h5").exists()


def test_a_file_without_the_networks_weights_is_refused(tmp_path, monkeypatch, capfd):
    digest = saved(nn.Linear(2, 2), tmp_path / "w.pth")
    assert loaded(tmp_path, LITE, digest, monkeypatch) == 1
    assert "w.pth has no weights of this network: its tensor 1 of 2" in capfd.readouterr().err
    (tmp_path / "w.pth").write_bytes(b"no weights")
    digest = hashlib.sha256(b"no weights").hexdigest()
    assert loaded(tmp_path, LITE, digest, monkeypatch) == 1
    assert "w.pth has no weights of this network" in capfd.readouterr().err


def test_initialised_networks_answer_with_finite_logits():
    # As the untrained network of Section 3's comparison.
    network = architectures.build(LITE, (3, 64, 64)).eval()
    architectures.initialise(network, torch.Generator().manual_seed(0))
    logits = network(torch.rand(2, 3, 64, 64))
    assert logits.isfinite().all()
    assert functional.softmax(logits, 1).shape == (2, 7)
