"""Pictures: drawn without a display, the same bytes every time."""

import struct

import numpy as np
import pytest

from blindspots import figures


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


def saved(figure, path):
    figures.save(figure, path)
    return path.read_bytes()


def curves():
    return figures.training_curves(histories(), 1e-5)


@pytest.mark.parametrize("draw", [lambda: figures.image_pairs(blocks(6, 6)), curves])
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
