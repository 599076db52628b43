"""Units and random directions: their images, and how alike those are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist
from torch import nn

from blindspots.analysis import units
from blindspots.networks import architectures

CONVOLUTION = {"channels": 3, "kernel": 3, "pool": 2, "units": [6, 4], "activation": "relu", "dropout": 0.5}
DEFINITIONS = [
    {"kind": "fully_connected", "units": [7, 5, 4], "activation": "sigmoid"},
    {"kind": "fully_connected", "units": [4], "activation": "sigmoid"},
    {"kind": "convolutional"} | CONVOLUTION,
]
SEEDS = st.integers(0, 2**32 - 1)


def built(definition, seed=0):
    network = architectures.build(definition, [6, 8])
    architectures.initialise(network, torch.Generator().manual_seed(seed))
    for layer in architectures.weight_layers(network):
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(seed + 1))
    return architectures.frozen(network)


def images(n, seed=0):
    return torch.rand(n, 6, 8, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# φ(x)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_the_last_layer_makes_the_logits_of_the_last_hidden_features(definition):
    network, given_images = built(definition), images(11)
    values = units.features(network, given_images, "last_hidden", batch=4)
    last = architectures.weight_layers(network)[-1]
    assert values.shape == (11, last.in_features)
    assert torch.allclose(values @ last.weight.T + last.bias, network(given_images), atol=1e-6)


def test_a_modules_features_are_its_flattened_output():
    network, given_images = built(DEFINITIONS[2]), images(5)
    values = units.features(network, given_images, "2", batch=2)  # the pooled convolution
    assert torch.allclose(values, network[:3](given_images).flatten(1), atol=1e-6)
    nested = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), nn.ReLU(), nn.Linear(3, 2))
    assert torch.allclose(units.features(nested, given_images, "0.1"), nested[0](given_images), atol=1e-6)


def test_features_are_those_before_a_later_layer_that_works_in_place():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(inplace=True), nn.Linear(20, 2))
    assert units.features(network, images(5), "1").min() < 0
    assert units.features(network, images(5), "2").min() == 0


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_features_are_in_the_order_of_the_images_whatever_the_batch(batch):
    network, given_images = built(DEFINITIONS[0]), images(7)
    values = units.features(network, given_images, "3", batch)
    assert torch.allclose(values, network[:4](given_images), atol=1e-6)


def test_an_unknown_layer_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"no layer hidden: .* last_hidden, 0, 1, 2, 3, 4, 5$"):
        units.features(built(DEFINITIONS[0]), images(2), "hidden")
    with pytest.raises(ValueError, match="no layer : "):
        units.features(built(DEFINITIONS[0]), images(2), "")


class Peculiar(nn.Module):
    """A layer that is used twice an image, and one that is not used."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.last = nn.Linear(48, 48), nn.Linear(48, 48), nn.Linear(48, 2)

    def forward(self, x):
        return self.last(self.twice(self.twice(x.flatten(1))))


@pytest.mark.parametrize(("layer", "times"), [("twice", 2), ("never", 0)])
def test_a_layer_without_one_output_an_image_is_refused_and_keeps_no_hook(layer, times):
    network = Peculiar()
    with pytest.raises(ValueError, match=f"its layer {layer} {times} times"):
        units.features(network, images(3), layer)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_the_network_keeps_no_hook():
    network = built(DEFINITIONS[0])
    for layer in ("last_hidden", "3"):
        units.features(network, images(3), layer)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        units.features(built(DEFINITIONS[0]), images(0))


# directions


@given(d=st.integers(1, 40), count=st.integers(1, 40), seed=SEEDS)
def test_random_directions_are_unit_vectors_and_more_of_them_begin_with_the_same(d, count, seed):
    directions = units.random_directions(d, count, seed)
    assert directions.shape == (d, count)
    assert np.linalg.norm(directions, axis=0) == pytest.approx(np.ones(count))
    assert np.array_equal(units.random_directions(d, count + 3, seed)[:, :count], directions)


def test_random_directions_are_uniform_over_the_sphere():
    # On a sphere in 3 dimensions each coordinate is uniform in [-1, 1] (Archimedes).
    for coordinate in units.random_directions(3, 4000, 0):
        assert stats.kstest(coordinate, "uniform", (-1, 2)).pvalue > 0.001


@given(d=st.integers(1, 40), seed=SEEDS)
def test_a_rotation_is_orthogonal(d, seed):
    basis = units.rotation(d, seed)
    assert basis.shape == (d, d)
    assert basis.T @ basis == pytest.approx(np.eye(d), abs=1e-12)
    assert np.array_equal(units.rotation(d, seed), basis)


def test_rotations_are_uniform_over_the_orthogonal_group():
    bases = np.array([units.rotation(3, seed) for seed in range(2000)])
    for coordinate in bases.reshape(2000, 9).T:  # each on its own is a coordinate on the sphere
        assert stats.kstest(coordinate, "uniform", (-1, 2)).pvalue > 0.001
    turns = (np.linalg.det(bases) > 0).mean()
    assert turns == pytest.approx(0.5, abs=0.05)  # reflections are as many


# the images of a row


@given(n=st.integers(1, 30), d=st.integers(1, 8), levels=st.integers(1, 5), seed=SEEDS, data=st.data())
def test_the_images_of_units_are_the_largest_first_and_ties_in_order(n, d, levels, seed, data):
    top = data.draw(st.integers(1, n))
    values = np.random.default_rng(seed).integers(levels, size=(n, d))  # few levels: many ties
    rows = units.largest(torch.from_numpy(values).float(), None, top)
    wanted = [sorted(range(n), key=lambda i: (-values[i, unit], i))[:top] for unit in range(d)]
    assert rows.tolist() == wanted


@given(seed=SEEDS)
def test_the_units_are_the_directions_of_the_identity(seed):
    values = torch.from_numpy(normal(30, 6, seed=seed))
    assert np.array_equal(units.largest(values, None, 5), units.largest(values, np.eye(6), 5))


@given(seed=SEEDS)
def test_a_permutation_of_units_permutes_rows(seed):
    rng = np.random.default_rng(seed)
    values, order = torch.from_numpy(rng.standard_normal((30, 6))), rng.permutation(6)
    assert np.array_equal(units.largest(values[:, order], None, 5), units.largest(values, None, 5)[order])
    directions = rng.standard_normal((6, 6))
    assert np.array_equal(
        units.largest(values, directions[:, order], 5), units.largest(values, directions, 5)[order]
    )


def test_the_images_of_directions_maximise_the_inner_product(monkeypatch):
    monkeypatch.setattr(units, "_BLOCK", 3)  # several, the last not full
    values, directions = normal(50, 6), units.random_directions(6, 8, 0)
    rows = units.largest(torch.from_numpy(values).float(), directions, 4)
    assert rows.shape == (8, 4)
    assert np.array_equal(rows, np.argsort(-(values @ directions), axis=0, kind="stable")[:4].T)
    assert np.array_equal(
        units.largest(torch.from_numpy(values), None, 4), np.argsort(-values, axis=0, kind="stable")[:4].T
    )


def test_turning_features_and_directions_alike_changes_no_row():
    values, directions, basis = normal(50, 6), units.random_directions(6, 8, 0), units.rotation(6, 1)
    turned = units.largest(torch.from_numpy(values @ basis), basis.T @ directions, 4)
    assert np.array_equal(turned, units.largest(torch.from_numpy(values), directions, 4))
    assert np.array_equal(  # and the rows of a rotated basis are those of the units of rotated features
        units.largest(torch.from_numpy(values), basis, 4),
        units.largest(torch.from_numpy(values @ basis), None, 4),
    )


def test_more_images_in_a_row_than_there_are_are_refused():
    with pytest.raises(ValueError, match="3 images, fewer than the 4"):
        units.largest(torch.zeros(3, 2), None, 4)


def test_alive_units_are_not_the_same_for_all_images():
    values = torch.tensor([[0.0, 2.0, 0.0, -1.0], [0.0, 2.0, 3.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    assert units.active_units(values).tolist() == [False, False, True, True]
    assert units.active_units(values, top=2).tolist() == [False, False, False, True]
    assert not units.active_units(values, top=3).any()


# how alike they are


def test_purity_is_the_share_of_the_most_common_label():
    labels = np.array([7, 7, 2, 3, 2, 7])
    rows = np.array([[0, 1, 5, 0], [0, 2, 3, 4], [0, 1, 2, 4], [5, 1, 2, 0]])
    assert units.purity(labels, rows).tolist() == [1, 0.5, 0.5, 0.75]


@given(
    n=st.integers(1, 30), kinds=st.integers(1, 12), m=st.integers(1, 6), top=st.integers(1, 10), seed=SEEDS
)
def test_purity_is_bounded_and_knows_no_order(n, kinds, m, top, seed):
    rng = np.random.default_rng(seed)
    labels, rows = rng.integers(kinds, size=n), rng.integers(n, size=(m, top))
    values = units.purity(labels, rows)
    assert (values >= 1 / min(top, kinds) - 1e-12).all()
    assert (values <= 1).all()
    assert np.array_equal(values == 1, np.ptp(labels[rows], axis=1) == 0)
    assert np.array_equal(units.purity(rng.permutation(kinds)[labels], rng.permuted(rows, axis=1)), values)


def test_the_spread_of_an_image_with_itself_is_0():
    vectors = normal(40, 5).astype(np.float32)
    vectors[7] = vectors[3]
    rows = np.array([[4, 4, 4], [3, 7, 3], [3, 7, 5]])
    assert units.spread(vectors, rows)[:2].tolist() == [0, 0]
    assert units.spread(vectors, rows)[2] > 0


@given(n=st.integers(3, 25), p=st.integers(1, 5), seed=SEEDS)
def test_the_spread_of_the_whole_set_is_1(n, p, seed):
    vectors = normal(n, p, seed=seed)
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    assert units.spread(vectors, pairs).mean() == pytest.approx(1)
    assert units.spread(vectors, np.arange(n)[None]) == pytest.approx([1])


def test_the_spread_of_random_rows_is_about_1():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((700, 10))  # more than a block
    rows = np.array([rng.choice(700, 9, replace=False) for _ in range(300)])
    assert units.spread(vectors, rows).mean() == pytest.approx(1, abs=0.02)


@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-1e6, 1e6), seed=SEEDS)
def test_spread_is_the_mean_distance_over_that_of_the_set_whatever_unit_and_origin(scale, offset, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((20, 3))
    rows = rng.integers(20, size=(4, 5))
    wanted = [pdist(vectors[row]).mean() / pdist(vectors).mean() for row in rows]
    assert units.spread(scale * (vectors + offset), rows) == pytest.approx(wanted, rel=1e-6)


def test_a_set_is_whole_up_to_its_limit_and_sampled_by_the_seed_above(monkeypatch):
    vectors, rows = normal(400, 3), np.arange(12).reshape(3, 4)
    monkeypatch.setattr(units, "SAMPLE", 400)
    whole = units.spread(vectors, rows)
    assert np.array_equal(units.spread(vectors, rows, seed=1), whole)
    monkeypatch.setattr(units, "SAMPLE", 150)
    one, again, two = (units.spread(vectors, rows, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, two)
    assert one == pytest.approx(whole, rel=0.1)


def test_blocks_do_not_change_the_mean_distance(monkeypatch):
    vectors = normal(50, 3)
    for block in (1, 7, 50, 500):
        monkeypatch.setattr(units, "_BLOCK", block)
        assert units._mean_distance(vectors) == pytest.approx(pdist(vectors).mean())


@pytest.mark.filterwarnings("error")
def test_spread_is_undefined_for_single_images_and_for_images_that_are_all_the_same():
    assert np.isnan(units.spread(normal(9, 3), np.arange(4)[:, None])).all()
    assert np.isnan(units.spread(np.full((9, 3), 0.1), np.arange(4)[None])).all()
