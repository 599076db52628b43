"""Pictures: drawn without a display, the same bytes every time."""

import json
import struct

import numpy as np
import pytest
import torch

from blindspots.data.pictures import class_names
from blindspots.networks import architectures
from blindspots.report import figures
from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array
from scripts import plot_adversarial, plot_filters


def blocks(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"block {i}": (rng.random((n, 4, 4)), rng.random((n, 4, 4)), [f"{k} → {k + 1}" for k in range(n)])
        for i, n in enumerate(sizes)
    }


def pairs(*sizes, seed=0):
    return figures.image_pairs(blocks(*sizes, seed=seed), "Figure 7")


def histories(seed=0):
    rng = np.random.default_rng(seed)
    keys = ("loss", "gradient_max", "error")
    cost = {"evaluations": np.linspace(2, 63.5, 9)}
    return {name: {key: np.sort(rng.random(9))[::-1] for key in keys} | cost for name in ("M1", "M2")}


def weights(count, seed=0):
    """Of both signs, and each unit's of another size."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 4, 5)) * 10.0 ** rng.uniform(-3, 3, (count, 1, 1))


def saved(figure, path):
    figures.save(figure, path)
    return path.read_bytes()


def pictures(count, *shape, seed=0):
    return np.random.default_rng(seed).random((count, *shape))


def unit_rows(count=4, top=5, shape=(4, 6)):
    return {f"unit {i}": pictures(top, *shape, seed=i) for i in range(count)}


def rows():
    return figures.image_rows(unit_rows(), "M1, last hidden layer, MNIST test", 2)


def triples(count=5, shape=(4, 6), columns=2):
    originals, adversarial = pictures(count, *shape), pictures(count, *shape, seed=1)
    examples = originals, adversarial, [f"{k} → {k + 1}" for k in range(count)]
    return figures.magnified({"M1, MNIST test": examples}, "Figure 5", 10, columns)


def drawn_filters(given, **options):
    figure = figures.filters(given, "first layer", **options)
    figures.plt.close(figure)
    return figure


def shown(figure):
    """The pixels of each picture of a page, in reading order, with its left and top edge in inches."""
    height = figure.get_figheight()
    found = []
    for picture in figure.axes[0].images:
        left, _, _, top = picture.get_extent()
        found.append((round(left, 6), round(height - top, 6), picture.get_array()))
    return sorted(found, key=lambda item: (item[1], item[0]))


def words(figure):
    return [text.get_text() for text in figure.texts]


def boxes(figure):
    """The extents of all words and pictures, in pixels, as drawn."""
    renderer = figure.canvas.get_renderer()
    return [item.get_window_extent(renderer) for item in (*figure.texts, *figure.axes[0].images)]


def curves():
    return figures.training_curves(histories(), 1e-5)


@pytest.mark.parametrize(
    "draw", [lambda: pairs(6, 6), curves, lambda: drawn_filters(weights(23)), rows, triples]
)
def test_the_same_picture_has_the_same_bytes(tmp_path, draw):
    assert saved(draw(), tmp_path / "a.png") == saved(draw(), tmp_path / "b.png")


def test_another_picture_has_other_bytes(tmp_path):
    one, two = (saved(pairs(6, seed=seed), tmp_path / f"{seed}.png") for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("draw", [lambda: pairs(12), curves, rows, triples])
def test_the_file_is_a_png_of_the_figures_size(tmp_path, draw):
    figure = draw()
    inches = figure.get_size_inches()
    content = saved(figure, tmp_path / "a.png")
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == pytest.approx(tuple(200 * inches), abs=1)
    assert len(content) > 10_000


def test_more_rows_of_images_make_a_taller_figure():
    heights = []
    for count in (12, 24):
        heights.append(pairs(count).get_size_inches()[1])
    figures.plt.close("all")
    assert heights[1] > 1.5 * heights[0]


@pytest.mark.parametrize("count", [1, 3, 6, 7, 18])
def test_every_pair_is_shown_original_first(count):
    figure = pairs(count)
    found = [pixels for _, _, pixels in shown(figure)]
    figures.plt.close(figure)
    originals, distorted, notes = blocks(count)["block 0"]
    assert len(found) == 2 * count
    for pair in range(count):
        assert np.array_equal(found[2 * pair], originals[pair])
        assert np.array_equal(found[2 * pair + 1], distorted[pair])
    assert words(figure)[:2] == ["Figure 7", "block 0"]
    assert [word for word in words(figure) if "→" in word] == notes


def test_a_block_without_images_leaves_the_others_as_wide():
    widths = [figure.get_figwidth() for figure in (pairs(6, 6), pairs(6, 0))]
    figures.plt.close("all")
    assert widths[0] == widths[1]


def test_all_images_have_one_gray_scale():
    figure = pairs(6, 6)
    limits = {picture.get_clim() for picture in figure.axes[0].images}
    figures.plt.close(figure)
    assert limits == {(0, 1)}


def test_training_curves_have_every_network_and_the_error_in_percent():
    given = histories()
    figure = figures.training_curves(given, 1e-5)
    lines = {
        axis.get_title(): {
            line.get_label(): line.get_ydata() for line in axis.lines if not line.get_label().startswith("_")
        }
        for axis in figure.axes
    }
    figures.plt.close(figure)
    assert all(set(panel) == set(given) for panel in lines.values())
    for axis in figure.axes:
        assert all((line.get_xdata() == given["M1"]["evaluations"]).all() for line in axis.lines[:2])
    assert lines["training error (%)"]["M2"] == pytest.approx(100 * given["M2"]["error"])
    assert lines["largest gradient component"]["M1"] == pytest.approx(given["M1"]["gradient_max"])


def test_training_curves_of_minibatches_lack_the_gradient_and_keep_the_colours():
    given = histories()
    without = {
        name: {k: v for k, v in history.items() if name != "M1" or "gradient" not in k}
        for name, history in given.items()
    }
    panels = []
    for histories_drawn in (given, without):
        figure = figures.training_curves(histories_drawn, 1e-5)
        lines = [line for line in figure.axes[1].lines if not line.get_label().startswith("_")]
        panels.append({line.get_label(): line.get_color() for line in lines})
        figures.plt.close(figure)
    whole, part = panels
    assert part == {name: colour for name, colour in whole.items() if name != "M1"}


def test_saved_figures_are_closed(tmp_path):
    before = figures.plt.get_fignums()
    saved(curves(), tmp_path / "a.png")
    assert figures.plt.get_fignums() == before


@pytest.mark.parametrize("columns", [20, 4])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11, 20, 21, 40, 41])
def test_every_unit_has_one_picture_of_its_weights_in_order(count, columns):
    given = weights(count)
    found = shown(drawn_filters(given, columns=columns))
    assert len({left for left, _, _ in found}) == min(count, columns)
    for (_, _, pixels), weight in zip(found, given, strict=True):
        assert np.allclose(pixels, 0.5 + weight / (2 * np.abs(weight).max()))


def test_filters_stand_in_rows_of_twenty():
    places = [(left, top) for left, top, _ in shown(drawn_filters(weights(21)))]
    assert len({top for _, top in places[:20]}) == 1
    assert places[20][1] > places[0][1]
    assert places[20][0] == places[0][0]


def test_each_filter_has_a_scale_of_its_own_with_zero_in_the_middle():
    given = weights(7)
    given[2] = -np.abs(given[2])  # nothing positive
    given[3] = 0
    found = np.array([pixels for _, _, pixels in shown(drawn_filters(given))])
    for pixels, weight in zip(found, given, strict=True):
        assert (pixels - 0.5) * 2 * np.abs(weight).max() == pytest.approx(weight)
    assert np.abs(found - 0.5).max(axis=(1, 2)) == pytest.approx([0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5])


def test_more_rows_of_filters_make_a_taller_figure():
    heights = {count: drawn_filters(weights(count)).get_figheight() for count in (1, 20, 21, 41)}
    assert heights[1] == heights[20]
    assert heights[41] - heights[21] == pytest.approx(heights[21] - heights[20])
    assert heights[21] > heights[20] + 0.3


CONVOLUTION = {"channels": 3, "kernel": 3, "pool": 2, "units": [6, 4], "activation": "relu", "dropout": 0.5}


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ({"kind": "fully_connected", "units": [7, 4], "activation": "sigmoid"}, (7, 6, 8)),
        ({"kind": "convolutional"} | CONVOLUTION, (3, 3, 3)),
    ],
)
def test_the_program_draws_the_first_layer_as_images(monkeypatch, tmp_path, definition, wanted):
    network = architectures.build(definition, [6, 8])
    architectures.initialise(network, torch.Generator().manual_seed(0))
    parameters = {f"parameters/{key}": Array(value, "weights") for key, value in network.state_dict().items()}
    shape = {"image_shape": Array([6, 8], "shape")}
    artifacts.write(tmp_path / "n.h5", parameters | shape, {"settings": {"network": definition}})
    drawn, draw = [], figures.filters
    monkeypatch.setattr(figures, "filters", lambda values, title: drawn.append(values) or draw(values, title))
    assert plot_filters.main(["--network", str(tmp_path / "n.h5"), "--output", str(tmp_path / "n.png")]) == 0
    (filters,) = drawn
    assert filters.shape == wanted
    first = architectures.weight_layers(network)[0].weight.detach().numpy()
    assert np.array_equal(filters.ravel(), first.ravel())
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_row_has_its_images_in_order_below_its_label(count, columns):
    given = unit_rows(count)
    figure = figures.image_rows(given, "a title", columns)
    figures.plt.close(figure)
    assert words(figure) == ["a title", *given]
    wanted = [
        image
        for start in range(0, count, columns)
        for row in list(given.values())[start : start + columns]
        for image in row
    ]
    found = shown(figure)
    assert len({top for _, top, _ in found}) == -(-count // columns)
    for (_, _, pixels), image in zip(found, wanted, strict=True):
        assert np.array_equal(pixels, image)
    for label, number in zip(figure.texts[1:], range(count), strict=True):
        left, top, _ = found[5 * number]
        width, height = figure.get_size_inches()
        assert label.get_position()[0] * width == pytest.approx(left)
        assert 0 < top - (1 - label.get_position()[1]) * height < 0.15


def test_rows_may_have_different_numbers_of_images():
    given = unit_rows(2, 5) | {"short": pictures(3, 4, 6)}
    figure = figures.image_rows(given, "a title")
    figures.plt.close(figure)
    assert len(shown(figure)) == 13


@pytest.mark.parametrize(
    "draw",
    [lambda shape: figures.image_rows(unit_rows(3, 4, shape), "rows"), lambda shape: triples(4, shape)],
)
def test_color_images_are_shown_in_their_colors_and_gray_ones_on_one_scale(draw):
    gray, color = draw((4, 6)), draw((3, 4, 6))
    figures.plt.close("all")
    assert {(*picture.get_clim(), picture.get_cmap().name) for picture in gray.axes[0].images} == {
        (0, 1, "gray")
    }
    assert {pixels.shape for _, _, pixels in shown(color)} == {(4, 6, 3)}
    assert np.array_equal(shown(color)[0][2], pictures(1, 3, 4, 6)[0].transpose(1, 2, 0))


@pytest.mark.parametrize("draw", [rows, triples])
def test_pixels_are_square_and_nothing_has_a_frame(draw):
    figure = draw()
    figures.plt.close(figure)
    (axis,) = figure.axes
    assert not axis.axison
    assert axis.get_window_extent().bounds == figure.bbox.bounds
    for picture in axis.images:
        place = picture.get_window_extent()
        assert place.width / 6 == pytest.approx(place.height / 4)


LONG = "a long name of many words, as a class of photographs has it, with all its synonyms and more; " * 3


@pytest.mark.parametrize("small", [(4, 6), (3, 224, 224)])
@pytest.mark.parametrize("columns", [1, 2])
def test_words_and_pictures_lie_on_the_page_and_never_over_each_other(small, columns):
    for figure in (
        figures.image_rows({f"{i} {LONG}": pictures(6, *small) for i in range(3)}, LONG, columns),
        figures.image_rows({"one $ and $ more_less": pictures(1, *small)}, LONG, columns),
        figures.magnified(
            {LONG: (pictures(3, *small), pictures(3, *small), ["a → b", LONG, LONG])}, LONG, 10, columns
        ),
    ):
        found = boxes(figure)
        figures.plt.close(figure)
        for number, box in enumerate(found):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(other) for other in found[:number])


def test_long_words_are_broken_and_none_is_lost():
    figure = figures.magnified({LONG: (pictures(1, 4, 6), pictures(1, 4, 6), [LONG])}, "", 10)
    figures.plt.close(figure)
    assert len(words(figure)) > 10
    heads = ["original", "difference × 10", "distorted"]
    assert " ".join(line for line in words(figure) if line not in heads).split() == (LONG + LONG).split()


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_example_is_original_magnified_difference_adversarial_above_its_note(count, columns):
    figure = triples(count, columns=columns)
    figures.plt.close(figure)
    originals, adversarial = pictures(count, 4, 6), pictures(count, 4, 6, seed=1)
    found = shown(figure)
    assert len(found) == 3 * count
    for k in range(count):
        one, middle, other = (pixels for _, _, pixels in found[3 * k : 3 * k + 3])
        assert np.array_equal(one, originals[k])
        assert np.allclose(middle, (128 / 255 + 10 * (adversarial[k] - originals[k])).clip(0, 1))
        assert np.array_equal(other, adversarial[k])
    heads = min(columns, count) * ["original", "difference × 10", "distorted"]
    assert words(figure) == ["Figure 5", "M1, MNIST test", *heads, *(f"{k} → {k + 1}" for k in range(count))]
    width, height = figure.get_size_inches()
    notes = figure.texts[-count:]
    for k, note in enumerate(notes):
        middle, top, _ = found[3 * k + 1]
        across = figure.axes[0].images[0].get_window_extent().width / figure.dpi
        assert note.get_position()[0] * width == pytest.approx(middle + across / 2)
        assert (1 - note.get_position()[1]) * height > top + across * 4 / 6


def test_no_difference_is_gray_and_large_ones_are_cut():
    originals = np.array([0.5, 0.5, 0.5, 0.5, 0.5], np.float32)
    changed = originals + np.array([0, 0.01, -0.01, 0.4, -0.4], np.float32)
    wanted = np.array([128, 128 + 25.5, 128 - 25.5, 255, 0]) / 255
    assert figures.magnify(originals, changed, 10) == pytest.approx(wanted, abs=1e-6)
    assert figures.magnify(originals, changed, 0) == pytest.approx(np.full(5, 128 / 255))


def test_words_are_no_formulas():
    figure = figures.image_rows({"$x_i$": pictures(2, 4, 6)}, "from $1 to $2")
    figures.plt.close(figure)
    assert not any(text.get_parse_math() for text in figure.texts)


def test_the_head_says_the_factor():
    figure = figures.magnified({"b": (pictures(1, 4, 6), pictures(1, 4, 6), ["a"])}, "c", 2.5)
    figures.plt.close(figure)
    assert "difference × 2.5" in words(figure)


def test_a_note_is_wanted_for_each_example():
    with pytest.raises(ValueError, match="shorter"):
        figures.magnified({"c": (pictures(3, 4, 6), pictures(3, 4, 6), ["a", "b"])}, "d", 10)


def written_photographs(folder, shards=7, each=10):
    """Photographs of which each is of one colour, its place, and two networks' shards with what was made of
    them.

    Every fifth was not made for the second network.
    """
    count = shards * each
    pixels = np.ones((count, 3, 4, 6), np.uint8) * np.arange(count, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(count, dtype=np.int16)
    data = {"pictures/images": Array(pixels, "photographs"), "pictures/labels": Array(labels, "classes")}
    artifacts.write(folder / "data.h5", data, {})
    paths = {"gathered": [], "shards": []}
    for number, network in enumerate(("A", "B")):
        success = (np.arange(count) % 5 > 0) if number else np.ones(count, bool)
        whole = {
            "index": np.arange(count),
            "labels": labels,
            "target": labels + 100 * (number + 1),
            "images": (pixels / 255 + 0.1).astype(np.float32),
            "success": success,
            "distortion": np.where(success, 0.1, np.nan),
        }
        for part in range(shards):
            cut = {
                name: Array(values[part * each : (part + 1) * each], name) for name, values in whole.items()
            }
            paths["shards"].append(folder / f"{network}-{part}.h5")
            artifacts.write(paths["shards"][-1], cut, {})
        paths["gathered"].append(folder / f"{network}.h5")
        artifacts.write(paths["gathered"][-1], {"distortion": Array(whole["distortion"], "sizes")}, {})
    wrong = {f"misclassified/{row}/{judge}": Array(np.ones(4), "wrong") for row in "AB" for judge in "AB"}
    artifacts.write(folder / "evaluation.h5", wrong, {})
    return {"data": [folder / "data.h5"], "evaluation": [folder / "evaluation.h5"], **paths}


def test_photographs_of_all_shards_are_drawn_up_to_as_many_as_the_paper_has(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "magnified", lambda blocks, *_: drawn.append(blocks) or figures.plt.figure())
    inputs = [
        word
        for role, paths in written_photographs(tmp_path).items()
        for word in (f"--{role}", *map(str, paths))
    ]
    networks_rows = [{"name": name, "network": name} for name in "AB"]
    settings = {"table": "figure5", "rows": networks_rows, "columns": ["A", "B"], "images": "pictures"}
    output = tmp_path / "figure5.png"
    assert plot_adversarial.main([*inputs, "--output", str(output), "--settings", json.dumps(settings)]) == 0
    assert output.exists()
    first, second = drawn[0].values()
    names = class_names()
    for (originals, distorted, notes), count, target in ((first, 64, 100), (second, 56, 200)):
        places = (255 * originals[:, 0, 0, 0]).round().astype(int)
        assert len(originals) == count
        assert (np.diff(places) > 0).all()  # in order, none twice,
        assert set(places // 10) == set(range(7))  # of every shard
        assert distorted == pytest.approx(originals + 0.1)
        assert notes == [f"{names[place]} → {names[place + target]}" for place in places]
    assert all(place % 5 for place in (255 * second[0][:, 0, 0, 0]).round())


def test_a_network_for_which_nothing_was_found_has_no_examples_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures, "image_pairs", lambda blocks, _: drawn.append(blocks) or figures.plt.figure()
    )
    digits = {
        "test/images": Array(np.zeros((3, 4, 6), np.uint8), "x"),
        "test/labels": Array(np.arange(3), "classes"),
    }
    artifacts.write(tmp_path / "data.h5", digits, {})
    for network, success in {"A": np.zeros(3, bool), "B": np.ones(3, bool)}.items():
        sizes = Array(np.where(success, 0.1, np.nan), "sizes")
        shard = {
            "index": np.arange(3),
            "labels": np.arange(3),
            "images": np.ones((3, 4, 6), np.float32),
            "success": success,
        }
        artifacts.write(tmp_path / f"{network}.h5", {name: Array(v, name) for name, v in shard.items()}, {})
        artifacts.write(tmp_path / f"{network}_gathered.h5", {"distortion": sizes}, {})
    wrong = {f"misclassified/{row}/{row}": Array(np.ones(1), "wrong") for row in "AB"}
    artifacts.write(tmp_path / "evaluation.h5", wrong, {})
    inputs = ["--data", str(tmp_path / "data.h5"), "--evaluation", str(tmp_path / "evaluation.h5")]
    inputs += ["--gathered", *(str(tmp_path / f"{name}_gathered.h5") for name in "BA")]
    inputs += ["--shards", *(str(tmp_path / f"{name}.h5") for name in "BA")]
    rows = [{"name": name, "network": name} for name in "BA"]
    settings = {"table": "figure7", "rows": rows, "columns": ["A", "B"], "images": "test"}
    with pytest.warns(RuntimeWarning, match="empty slice"):
        assert (
            plot_adversarial.main(
                [*inputs, "--output", str(tmp_path / "f.png"), "--settings", json.dumps(settings)]
            )
            == 0
        )
    assert [len(originals) for originals, _, _ in drawn[0].values()] == [3, 0]


def test_errors_by_epoch_are_those_of_the_networks_and_their_range():
    rng = np.random.default_rng(0)
    epochs = np.arange(5.0, 105, 5)

    def errors():
        return figures.Errors(epochs, rng.uniform(0.01, 0.05, (3, 20)))

    panels = {name: {f"{name}_{k}": errors() for k in range(2)} for name in ("relu", "sigmoid")}
    figure = figures.errors_by_epoch(panels, {"relu_1": "<1.2", "another": "1.6"}, "a title")
    assert figure.get_suptitle() == "a title"
    assert len(figure.axes) == 4
    for place, (panel, errors) in enumerate(panels.items()):
        curves, ends = figure.axes[2 * place : 2 * place + 2]
        assert panel in curves.get_title()
        assert [text.get_text() for text in curves.get_legend().get_texts()] == list(errors)
        for line, band, (_, values) in zip(curves.lines, curves.collections, errors.values(), strict=True):
            assert line.get_xdata().tolist() == epochs.tolist()
            assert line.get_ydata() == pytest.approx(100 * values.mean(0))
            heights = band.get_paths()[0].vertices[:, 1]
            assert (heights.min(), heights.max()) == pytest.approx((100 * values.min(), 100 * values.max()))
        lines = [line for line in ends.lines if line.get_linestyle() != ":"]
        dots, means = lines[0::2], lines[1::2]
        for dot, mean, (_, values) in zip(dots, means, errors.values(), strict=True):
            assert dot.get_xdata() == pytest.approx(100 * values[:, -1])
            assert mean.get_xdata() == pytest.approx([100 * values[:, -1].mean()])
        assert [label.get_text() for label in ends.get_yticklabels()] == list(errors)
        papers = [line.get_xdata()[0] for line in ends.lines if line.get_linestyle() == ":"]
        assert papers == ([1.2] if panel == "relu" else [])
        assert [text.get_text() for text in ends.texts] == ["paper: <1.2"] * len(papers)


def test_a_figure_of_many_rows_leaves_none_out():
    letters = [plot_adversarial._letter(number) for number in range(60)]
    assert letters[:3] == ["a", "b", "c"]
    assert letters[25:28] == ["z", "aa", "bb"]
    assert len(set(letters)) == 60
