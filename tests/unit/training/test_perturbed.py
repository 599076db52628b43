"""Training with perturbed outputs of layers: what is
perturbed, by how much, and which layers learn from it."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from blindspots.attack.core import minimum_distortion
from blindspots.networks import architectures
from blindspots.networks.architectures import frozen
from blindspots.networks.flattening import flat
from blindspots.training import perturbed
from blindspots.training.perturbed import term

IMAGES = torch.rand(40, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(1))
UNITS = [19, 17, 4]
POOLS = {"amplified": False, "size": 24, "replaced": 0.5, "batch": 8}


def network_of(activation="sigmoid", dropout=(), seed=0):
    network = architectures.fully_connected([6], UNITS, activation, dropout)
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for layer in architectures.weight_layers(network):
            layer.weight *= 3  # so that the images are of several classes
            layer.bias -= layer.weight.sum(1) / 2
    return network.double()


def term_of(kind, norms, network, weight=1.0, seed=3, labels=LABELS, **options):
    definition = {"kind": kind, "norms": norms, "weight": weight} | (
        POOLS | options if kind == "pools" else {}
    )
    return term(definition, network, IMAGES, labels, seed)


def outputs(network, images=IMAGES):
    """By hand: the images, and what each activation returns."""
    found = [images]
    for layer in network:
        images = layer(images)
        if isinstance(layer, (torch.nn.Sigmoid, torch.nn.ReLU, torch.nn.Tanh)):
            found.append(images)
    return found


ADDED = perturbed._Layerwise.added


def seen(monkeypatch, made):
    """A term's gradient, and what is perturbed in it, (b, n) by the place of the output."""
    found = {}

    def added(self, to, perturbed, labels):
        assert all(torch.equal(part, LABELS) for part in labels)
        found.update({place: values.t() for place, values in perturbed.items()})
        return ADDED(self, to, perturbed, labels)

    monkeypatch.setattr(perturbed._Layerwise, "added", added)
    return made.gradient(IMAGES, LABELS), found


def ranges(activation):
    return [(0, 1), *2 * [{"sigmoid": (0, 1), "relu": (0, math.inf), "tanh": (-1, 1)}[activation]]]


def by_torch(network, loss):
    """The loss's gradient by all parameters, one vector."""
    return flat(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize("kind", ["steps", "noise"])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_outputs_are_perturbed_by_their_norms_within_their_ranges(monkeypatch, kind, activation):
    network = network_of(activation)
    norms = [0.3, 0.0, 0.2]
    _, found = seen(monkeypatch, term_of(kind, norms, network))
    assert sorted(found) == [0, 2]
    for place, moved in found.items():
        low, high = ranges(activation)[place]
        sizes = (moved - outputs(network)[place].flatten(1)).norm(dim=1)
        inside = ((moved > low) & (moved < high)).flatten(1).all(1)
        assert (moved >= low).all()
        assert (moved <= high).all()
        assert inside.any() or activation != "sigmoid"
        assert sizes[inside].tolist() == pytest.approx([norms[place]] * int(inside.sum()))
        assert (sizes <= norms[place] * (1 + 1e-12)).all()


def test_the_loss_is_the_images_and_that_of_the_layers_above_what_is_perturbed(monkeypatch):
    network = network_of()
    gradient, found = seen(monkeypatch, term_of("steps", [0.3, 0.2, 0.1], network, weight=0.7))
    expected = cross_entropy(network(IMAGES), LABELS)
    for place, cut in enumerate((0, 3, 5)):
        expected = expected + 0.7 * cross_entropy(network[cut:](found[place]), LABELS)
    torch.testing.assert_close(gradient, by_torch(network, expected))


def test_the_loss_with_pools_is_the_images_and_as_many_examples_of_each_pool_with_their_own_labels(
    monkeypatch,
):
    network = network_of().eval()
    labels = network(IMAGES).argmax(1)
    made = term_of("pools", [0.3, 0.0, 0.1], network, weight=0.7, labels=labels)
    monkeypatch.setattr(made, "_draw", lambda among, count: (5 * torch.arange(count)) % among)
    gradient = made.gradient(IMAGES, labels)
    expected = cross_entropy(network(IMAGES), labels)
    assert sorted(made.pools) == [0, 2]
    for place, cut in ((0, 0), (2, 5)):
        examples, truth = made.pools[place]
        rows = (5 * torch.arange(40)) % len(truth)
        expected = expected + 0.7 * cross_entropy(network[cut:](examples[rows]), truth[rows])
    torch.testing.assert_close(gradient, by_torch(network, expected))


def test_a_step_raises_the_loss_more_than_any_noise_of_its_size(monkeypatch):
    network = network_of()
    _, steps = seen(monkeypatch, term_of("steps", [1e-3] * 3, network))
    _, noise = seen(monkeypatch, term_of("noise", [1e-3] * 3, network))
    for place, cut in enumerate((0, 3, 5)):
        above = network[cut:]
        plain, most, some = (
            cross_entropy(above(h), LABELS, reduction="none")
            for h in (outputs(network)[place], steps[place], noise[place])
        )
        free = ((steps[place] > 0) & (steps[place] < 1)).flatten(1).all(1)
        assert free.any()
        assert (most > plain)[free].all()
        assert (most > some)[free].all()


@pytest.mark.parametrize("kind", ["steps", "noise", "pools"])
def test_only_the_layers_above_learn_from_what_is_perturbed(kind):
    network = network_of()
    perturbed = term_of(kind, [0.0, 0.0, 0.3], network).gradient(IMAGES, LABELS)
    plain = by_torch(network, cross_entropy(network(IMAGES), LABELS))
    above = sum(parameter.numel() for parameter in network[-1].parameters())
    assert perturbed[:-above].numpy() == pytest.approx(plain[:-above].numpy(), abs=1e-14)
    assert ((perturbed - plain)[-above:].abs() > 1e-5).double().mean() > 0.9


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_a_pool_has_the_nearest_outputs_of_another_class(activation):
    network = network_of(activation).eval()
    with torch.no_grad():
        for values in network[-1].parameters():
            values *= 20  # logits of the size that training comes to
    labels = network(IMAGES).argmax(1)
    made = term_of("pools", [1e6] * 3, network, labels=labels)
    made.gradient(IMAGES, labels)
    for place, cut in enumerate((0, 3, 5)):
        above, (low, high) = network[cut:], ranges(activation)[place]
        examples, truth = made.pools[place]
        assert ((examples >= low) & (examples <= high)).all()
        said = above(examples)
        first, second = said.topk(2, dim=1).values.unbind(1)
        assert (said.argmax(1) != truth).all()
        assert (first - second).max() < 0.05
        assert len(truth) >= 6  # of 8: what is not found is left out
        origins = outputs(network)[place].detach()
        minima = minimum_distortion(frozen(above), origins, "second", labels=labels, bounds=(low, high))
        nearest = (minima.images - origins).flatten(1).norm(dim=1)
        for example, label in zip(examples, truth, strict=True):
            farther = (example - origins.flatten(1)).norm(dim=1)[labels == label] / nearest[labels == label]
            assert 0.99 < farther[(farther - 1).abs().argmin()] < 1.2  # of one of the images


def test_what_lies_beyond_the_norm_is_brought_back_to_it():
    network = network_of().eval()
    labels = network(IMAGES).argmax(1)
    made = term_of("pools", [1e-3] * 3, network, labels=labels)
    made.gradient(IMAGES, labels)
    for place, origins in enumerate(outputs(network)):
        gaps = torch.cdist(made.pools[place][0].flatten(1), origins.flatten(1)).amin(1)
        assert gaps.max().item() == pytest.approx(1e-3)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_amplified_examples_lie_at_the_norm_in_the_directions_of_the_nearest(activation):
    network = network_of(activation).eval()
    labels = network(IMAGES).argmax(1)
    labels[:8] = (labels[:8] + 1) % 4  # misclassified: a third class is the target
    near, far = (
        term_of("pools", [norm] * 3, network, labels=labels, amplified=norm < 1e6) for norm in (1e6, 0.02)
    )
    for made in (near, far):
        made.gradient(IMAGES, labels)
    inside = []
    for place, (low, high) in enumerate(ranges(activation)):
        origins = outputs(network)[place].flatten(1)
        nearest, amplified = (made.pools[place][0].flatten(1) for made in (near, far))
        assert ((amplified >= low) & (amplified <= high)).all()
        x = origins[torch.cdist(amplified, origins).argmin(1)]
        r, short = nearest - x, amplified - x
        assert (r.norm(dim=1) > 1e-6).all()
        free = ((amplified > low) & (amplified < high)).all(1)
        inside.append(int(free.sum()))
        assert short[free].norm(dim=1).tolist() == pytest.approx([0.02] * inside[-1])
        assert torch.cosine_similarity(r[free], short[free]).tolist() == pytest.approx([1.0] * inside[-1])
        assert (short.norm(dim=1) < 0.02 + 1e-9).all()
    assert sum(inside) > 3


def test_a_pool_grows_to_its_size_and_is_then_renewed_at_its_rate():
    network = network_of()
    labels = network(IMAGES).argmax(1)  # of which others are near
    made = term_of("pools", [0.5, 0.0, 0.5], network, labels=labels)
    sizes, kept, before = [], [], None
    for _ in range(12):  # of 40 images, for which 12 of 24 examples are to be made, 8 at a time
        made.gradient(IMAGES, labels)
        with torch.no_grad():
            network[1].bias += 0.01  # so that no example is made twice
        now = made.pools[2][0]
        sizes.append(len(now))
        if before is not None and len(before) == 24:
            kept.append(sum(bool((example == before).all(1).any()) for example in now))
        before = now
    assert sizes == [8, *[24] * 11]
    assert sorted(made.pools) == [0, 2]
    # Every other time two batches are made, of which the second takes the place of a third of the first.
    assert 24 - np.mean(kept) == pytest.approx((8 + 16 - 8 / 3) / 2, abs=1)


def test_making_examples_leaves_the_network_as_it_was():
    network = network_of(dropout=(0.0, 0.2, 0.2)).train()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    made = term_of("pools", [0.5, 0.5, 0.5], network)
    made.gradient(IMAGES, LABELS)
    assert all(layer.training for layer in network)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["noise", "pools"])
def test_a_seed_decides_what_is_drawn(kind):
    losses = [
        [made.gradient(IMAGES[:10], LABELS[:10]).tolist() for _ in range(6)]
        for made in (term_of(kind, [0.5] * 3, network_of(), seed=seed) for seed in (3, 3, 4))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("kind", ["noise", "pools"])
def test_a_term_goes_on_from_its_state(kind):
    network = network_of()
    one, other = (term_of(kind, [0.5] * 3, network, seed=seed) for seed in (3, 9))
    for _ in range(3):
        one.gradient(IMAGES[:10], LABELS[:10])
    other.load_state_dict(one.state_dict())
    following = [
        [made.gradient(IMAGES[:10], LABELS[:10]).tolist() for _ in range(5)] for made in (one, other)
    ]
    assert following[0] == following[1]


def test_a_norm_is_wanted_for_each_output():
    with pytest.raises(ValueError, match="2 norms for the input and 2 hidden outputs"):
        term_of("steps", [0.1, 0.1], network_of())
