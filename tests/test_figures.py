"""Pictures: drawn without a display, the same bytes every time."""

import struct

import numpy as np
import pytest
import torch

from blindspots import artifacts, figures, networks
from blindspots.artifacts import Dataset
from scripts import plot_filters


def blocks(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"block {i}": (rng.random((n, 4, 4)), rng.random((n, 4, 4)), [f"{k} → {k + 1}" for k in range(n)])
        for i, n in enumerate(sizes)
    }


def histories(seed=0):
    rng = np.random.default_rng(seed)
    keys = ("loss", "gradient_max", "error")
    return {name: {key: np.sort(rng.random(9))[::-1] for key in keys} for name in ("M1", "M2")}


def weights(count, seed=0):
    """Of both signs, and each unit's of another size."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 4, 5)) * 10.0 ** rng.uniform(-3, 3, (count, 1, 1))


def saved(figure, path):
    figures.save(figure, path)
    return path.read_bytes()


def curves():
    return figures.training_curves(histories(), 1e-5)


@pytest.mark.parametrize("draw", [lambda: figures.image_pairs(blocks(6, 6)), curves, lambda: figures.filters(weights(23))])
def test_the_same_picture_has_the_same_bytes(tmp_path, draw):
    assert saved(draw(), tmp_path / "a.png") == saved(draw(), tmp_path / "b.png")


def test_another_picture_has_other_bytes(tmp_path):
    one, two = (saved(figures.image_pairs(blocks(6, seed=seed)), tmp_path / f"{seed}.png") for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("draw", [lambda: figures.image_pairs(blocks(12)), curves])
def test_the_file_is_a_png_of_the_figures_size(tmp_path, draw):
    figure = draw()
    inches = figure.get_size_inches()
    content = saved(figure, tmp_path / "a.png")
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == pytest.approx(tuple(150 * inches), abs=1)
    assert len(content) > 10_000


def test_more_rows_of_images_make_a_taller_figure():
    heights = []
    for count in (12, 24):
        heights.append(figures.image_pairs(blocks(count)).get_size_inches()[1])
    figures.plt.close("all")
    assert heights[1] > 1.5 * heights[0]


@pytest.mark.parametrize("count", [1, 3, 6, 7, 18])
def test_every_pair_is_shown_original_first(count):
    wanted = blocks(count)
    figure = figures.image_pairs(wanted)
    shown = [axis.images[0].get_array() for axis in figure.subfigs[0].axes if axis.images]
    figures.plt.close(figure)
    originals, distorted, _ = wanted["block 0"]
    assert len(shown) == 2 * count
    for pair in range(count):
        assert np.array_equal(shown[2 * pair], originals[pair])
        assert np.array_equal(shown[2 * pair + 1], distorted[pair])


def test_all_images_have_one_gray_scale():
    figure = figures.image_pairs(blocks(6, 6))
    limits = {axis.images[0].get_clim() for part in figure.subfigs for axis in part.axes if axis.images}
    figures.plt.close(figure)
    assert limits == {(0, 1)}


def test_training_curves_have_every_network_and_the_error_in_percent():
    given = histories()
    figure = figures.training_curves(given, 1e-5)
    lines = {
        axis.get_title(): {line.get_label(): line.get_ydata() for line in axis.lines if not line.get_label().startswith("_")}
        for axis in figure.axes
    }
    figures.plt.close(figure)
    assert all(set(panel) == set(given) for panel in lines.values())
    assert lines["training error (%)"]["M2"] == pytest.approx(100 * given["M2"]["error"])
    assert lines["largest gradient component"]["M1"] == pytest.approx(given["M1"]["gradient_max"])


def test_saved_figures_are_closed(tmp_path):
    before = figures.plt.get_fignums()
    saved(curves(), tmp_path / "a.png")
    assert figures.plt.get_fignums() == before


@pytest.mark.parametrize("columns", [20, 4])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11, 20, 21, 40, 41])
def test_every_unit_has_one_picture_of_its_weights_in_order(count, columns):
    given = weights(count)
    figure = figures.filters(given, columns=columns)
    figures.plt.close(figure)
    axes = figure.axes
    assert len(axes) == columns * -(-count // columns)
    assert [len(axis.images) for axis in axes] == [1] * count + [0] * (len(axes) - count)
    assert not any(axis.axison for axis in axes)  # no frame, where there is no picture either
    for axis, weight in zip(axes, given, strict=False):
        (picture,) = axis.images
        assert np.array_equal(picture.get_array(), weight)


def test_filters_stand_in_rows_of_twenty():
    figure = figures.filters(weights(21))
    figures.plt.close(figure)
    assert figure.axes[0].get_gridspec().ncols == 20
    assert figure.axes[0].get_gridspec().nrows == 2


def test_each_filter_has_a_scale_of_its_own_with_zero_in_the_middle():
    given = weights(7)
    given[2] = -np.abs(given[2])  # nothing positive
    figure = figures.filters(given)
    figures.plt.close(figure)
    for axis, weight in zip(figure.axes, given, strict=False):
        (picture,) = axis.images
        largest = np.abs(weight).max()
        assert picture.get_clim() == (-largest, largest)
        assert picture.norm(0.0) == pytest.approx(0.5)
        assert picture.get_cmap().name == "gray"


def test_more_rows_of_filters_make_a_taller_figure():
    heights = {}
    for count in (1, 20, 21, 41):
        figure = figures.filters(weights(count))
        figures.plt.close(figure)
        heights[count] = figure.get_size_inches()[1]
    assert heights[1] == heights[20]
    assert heights[21] == 2 * heights[20]
    assert heights[41] == 3 * heights[20]


CONVOLUTION = {"channels": 3, "kernel": 3, "pool": 2, "units": [6, 4], "activation": "relu", "dropout": 0.5}


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ({"kind": "fully_connected", "units": [7, 4], "activation": "sigmoid"}, (7, 6, 8)),
        ({"kind": "convolutional"} | CONVOLUTION, (3, 3, 3)),
    ],
)
def test_the_program_draws_the_first_layer_as_images(monkeypatch, tmp_path, definition, wanted):
    network = networks.build(definition, [6, 8])
    networks.initialise(network, torch.Generator().manual_seed(0))
    parameters = {f"parameters/{key}": Dataset(value, "weights") for key, value in network.state_dict().items()}
    shape = {"image_shape": Dataset([6, 8], "shape")}
    artifacts.write(tmp_path / "n.h5", parameters | shape, {"settings": {"network": definition}})
    drawn, draw = [], figures.filters
    monkeypatch.setattr(figures, "filters", lambda values: drawn.append(values) or draw(values))
    assert plot_filters.main(["--network", str(tmp_path / "n.h5"), "--output", str(tmp_path / "n.png")]) == 0
    (filters,) = drawn
    assert filters.shape == wanted
    first = networks.weight_layers(network)[0].weight.detach().numpy()
    assert np.array_equal(filters.ravel(), first.ravel())
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")
