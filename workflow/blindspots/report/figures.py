"""Figures, drawn without a display. Every run makes the same bytes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# The import fails if the environment names the backend of a notebook that is not installed here.
os.environ["MPLBACKEND"] = "Agg"
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from blindspots.steps.artifacts import whole_file

DPI = 200
TITLE, LABEL, NOTE = 11, 9, 7  # font sizes in points


Examples = tuple[np.ndarray, np.ndarray, Sequence[str]]  # originals, distorted images, the note of each pair


def image_pairs(blocks: Mapping[str, Examples], title: str, columns: int = 6) -> Figure:
    """Draw original images beside their distorted versions, as in Figure 7 of the paper.

    Args:
        blocks: The examples by caption. Their images are (n, height, width), in [0, 1], all of one size.
        title: The title of the figure.
        columns: The number of pairs side by side.
    Returns:
        The figure.
    """
    pairs = {
        caption: ((originals, distorted), notes) for caption, (originals, distorted, notes) in blocks.items()
    }
    return _groups(pairs, ("original", "distorted"), title, columns, small=0.75)


def image_rows(rows: Mapping[str, np.ndarray], title: str, columns: int = 1) -> Figure:
    """Draw rows of images, each below its label, as in Figures 1 to 4 of the paper.

    Args:
        rows: The images by label, (n, height, width) or (n, 3, height, width), in [0, 1], all of one size.
        title: The title of the figure.
        columns: The number of rows side by side.
    Returns:
        The figure.
    """
    cell = _cell(next(iter(rows.values())), 0.6)
    longest = max(map(len, rows.values()))
    block = longest * cell[0] + (longest - 1) * _GAP
    lefts = [place * (block + _WIDE_GAP) for place in range(columns)]
    bands = []
    for start in range(0, len(rows), columns):
        line = list(zip(lefts, list(rows.items())[start : start + columns], strict=False))
        bands += [
            [_Text(left, block, label, LABEL, "left") for left, (label, _) in line],
            [
                _Picture(left + k * (cell[0] + _GAP), *cell, image)
                for left, (_, images) in line
                for k, image in enumerate(images)
            ],
            _BLANK,
        ]
    return _sheet(columns * (block + _WIDE_GAP) - _WIDE_GAP, title, bands[:-1])


def filters(weights: np.ndarray, title: str, columns: int = 20) -> Figure:
    """Draw the weights of a layer's units as images.

    Each unit is scaled by its largest absolute weight. A weight of 0 is gray.

    Args:
        weights: The weights, (units, height, width).
        title: The title of the figure.
        columns: The number of units side by side.
    Returns:
        The figure.
    """
    width, height = _cell(weights, 0.45)
    largest = np.abs(weights).max(axis=(1, 2), keepdims=True)
    scaled = 0.5 + weights / np.where(largest > 0, 2 * largest, 1)
    bands = [
        [
            _Picture(place * (width + _GAP), width, height, pixels)
            for place, pixels in enumerate(scaled[start : start + columns])
        ]
        for start in range(0, len(scaled), columns)
    ]
    return _sheet(columns * (width + _GAP) - _GAP, title, bands)


def magnified(blocks: Mapping[str, Examples], title: str, factor: float, columns: int = 4) -> Figure:
    """Draw originals, magnified differences and distorted images, as in Figure 5 of the paper.

    Args:
        blocks: The examples by caption. Their images are (n, height, width) or (n, 3, height, width), in [0,
            1], all of one size.
        title: The title of the figure.
        factor: The factor of the difference.
        columns: The number of examples side by side.
    Returns:
        The figure.
    """
    triples = {
        caption: ((originals, magnify(originals, adversarial, factor), adversarial), notes)
        for caption, (originals, adversarial, notes) in blocks.items()
    }
    return _groups(triples, ("original", f"difference × {factor:g}", "distorted"), title, columns, small=0.85)


def _groups(
    blocks: Mapping[str, tuple[Sequence[np.ndarray], Sequence[str]]],
    words: Sequence[str],
    title: str,
    columns: int,
    small: float,
) -> Figure:
    """Draw groups of images in blocks below their captions.

    Each group has a note below it, and `words` above its images. For each word, a block of `blocks` has the
    images, (n, ...). It also has the n notes. `small` is the width of a small image in inches; a word must
    fit in it.
    """
    cell = _cell(next(iter(blocks.values()))[0][0], small)
    block = len(words) * cell[0] + (len(words) - 1) * _GAP
    columns = max(1, min(columns, max(len(notes) for _, notes in blocks.values())))
    lefts = [place * (block + _WIDE_GAP) for place in range(columns)]
    width = columns * (block + _WIDE_GAP) - _WIDE_GAP
    bands = []
    for caption, (images, notes) in blocks.items():
        bands.append([_Text(0, max(width, _NARROWEST), caption, LABEL, "left")])
        bands.append(
            [
                _Text(left + k * (cell[0] + _GAP), cell[0], word, NOTE)
                for left in lefts
                for k, word in enumerate(words)
            ]
        )
        examples = list(zip(zip(*images, strict=True), notes, strict=True))
        for start in range(0, len(examples), columns):
            line = list(zip(lefts, examples[start : start + columns], strict=False))
            bands += [
                [
                    _Picture(left + k * (cell[0] + _GAP), *cell, image)
                    for left, (group, _) in line
                    for k, image in enumerate(group)
                ],
                [_Text(left, block, note, NOTE) for left, (_, note) in line],
                _BLANK,
            ]
    return _sheet(width, title, bands[:-1])


def magnify(originals: np.ndarray, adversarial: np.ndarray, factor: float) -> np.ndarray:
    """Return the magnified difference of images, as in Figure 5 of the paper.

    A difference of 0 becomes the gray of 128/255.

    Args:
        originals: The original images x, of any shape, in [0, 1].
        adversarial: The distorted images x', of the same shape.
        factor: The factor of x' - x.
    Returns:
        The images, of the same shape, clipped to [0, 1].
    """
    return (128 / 255 + factor * (adversarial - originals)).clip(0, 1)


_GAP, _WIDE_GAP, _MARGIN = 0.03, 0.2, 0.08  # inches between images, between groups, and around the page
_NARROWEST = 4.0  # least width of a page in inches, so that its text has room
_LINE = 1.3  # from one line of text to the next, as a multiple of its font size


class _Picture(NamedTuple):
    """An image, ([3,] height, width), in [0, 1], with its left edge and its size in inches."""

    left: float
    width: float
    height: float
    pixels: np.ndarray


class _Text(NamedTuple):
    """A text to be broken into lines of a width, with its left edge in inches and its font size in points."""

    left: float
    width: float
    words: str
    size: float
    align: str = "center"

    @property
    def lines(self) -> list[str]:
        """The text, broken into lines of the width."""
        lines = [""]
        for word in self.words.split():
            longer = f"{lines[-1]} {word}".strip()
            points, _, _ = text_to_path.get_text_width_height_descent(
                longer, FontProperties(size=self.size), ismath=False
            )
            # Letters are drawn on whole pixels, which makes them a little wider.
            fits = points <= 0.96 * 72 * self.width
            lines[-1:] = [longer] if fits or not lines[-1] else [lines[-1], word]
        return lines

    @property
    def height(self) -> float:
        """The height of all lines in inches."""
        return len(self.lines) * _LINE * self.size / 72


_BLANK: list[_Picture | _Text] = []  # an empty band between others


def _cell(images: np.ndarray, small: float) -> tuple[float, float]:
    """Return the width and height of each image in inches; photographs are larger than `small` ones."""
    height, width = images.shape[-2:]
    across = small if width < 100 else 1.1
    return across, across * height / width


def _sheet(width: float, title: str, bands: Sequence[Sequence[_Picture | _Text]]) -> Figure:
    """Draw a page with a title and bands below it.

    The width is in inches, and each band is as high as its content. All items are placed in one pair of axes
    in inches. Constrained layout does not keep images close, and axes for each of hundreds of images take
    seconds.
    """
    width = max(width, _NARROWEST)
    bands = [[_Text(0, width, title, TITLE, "left")], _BLANK, *bands]
    heights = [max((item.height for item in band), default=_GAP) + _GAP for band in bands]
    across, down = width + 2 * _MARGIN, sum(heights) + 2 * _MARGIN
    figure = plt.figure(figsize=(across, down))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, across), ylim=(0, down), autoscale_on=False)
    axis.set_axis_off()
    top = down - _MARGIN
    for band, height in zip(bands, heights, strict=True):
        for item in band:
            left = _MARGIN + item.left
            if isinstance(item, _Picture):
                pixels = item.pixels if item.pixels.ndim == 2 else np.moveaxis(item.pixels, 0, -1)
                extent = (left, left + item.width, top - item.height, top)
                axis.imshow(pixels.clip(0, 1), cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extent)
            else:
                anchor = left + (item.width / 2 if item.align == "center" else 0)
                for number, line in enumerate(item.lines):
                    baseline = top - (1 + number * _LINE) * item.size / 72
                    figure.text(
                        anchor / across,
                        baseline / down,
                        line,
                        fontsize=item.size,
                        ha=item.align,
                        parse_math=False,
                    )
        top -= height
    return figure


def training_curves(histories: Mapping[str, Mapping[str, np.ndarray]], tolerance: float | None) -> Figure:
    """Draw the loss, the largest gradient component and the training error of every network during training.

    The horizontal axis is the number of gradients of all images so far. Networks that are trained in
    minibatches have no recorded gradient.

    Args:
        histories: The arrays of each network's history, by the network's name. Each array is (points,).
        tolerance: The tolerance of the largest gradient component, or None for no line.
    Returns:
        The figure.
    """
    panels = {
        "loss": "loss with decay",
        "gradient_max": "largest gradient component",
        "error": "training error (%)",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            if key in history:
                values = history[key] * (100 if key == "error" else 1)
                axis.plot(history["evaluations"], values, label=name, color=f"C{number}", linewidth=1.2)
        axis.set(xlabel="gradients of all images", title=label)
        axis.set_yscale("symlog", linthresh=0.01) if key == "error" else axis.set_yscale("log")
        axis.grid(alpha=0.3)
    if tolerance is not None:
        axes[1].axhline(tolerance, color="gray", linestyle=":")
    axes[0].legend()
    return figure


class Errors(NamedTuple):
    """The errors of one way of training.

    Attributes:
        epochs: The epochs after which they were measured, (points,).
        values: The errors, (seeds, points), as fractions.
    """

    epochs: np.ndarray
    values: np.ndarray


def errors_by_epoch(
    panels: Mapping[str, Mapping[str, Errors]], printed: Mapping[str, str], title: str
) -> Figure:
    """Draw test errors by epoch.

    On the left is the mean over the seeds, within their range. On the right is the last error of each seed.

    Args:
        panels: The errors of each network, by the panel's name and the network's name.
        printed: The numbers in percent, as the paper prints them, for the networks that it has.
        title: The title of the figure.
    Returns:
        The figure.
    """
    figure, axes = plt.subplots(
        len(panels),
        2,
        figsize=(11, 3.6 * len(panels)),
        width_ratios=(3, 2),
        sharex="col",
        layout="constrained",
        squeeze=False,
    )
    figure.suptitle(title, fontsize=TITLE)
    for (curves, ends), (panel, errors) in zip(axes, panels.items(), strict=True):
        for place, (name, (epochs, values)) in enumerate(errors.items()):
            look = {"color": f"C{place}", "marker": "osv^DPX*"[place % 8], "markersize": 4}
            percent = 100 * values
            curves.fill_between(
                epochs, percent.min(0), percent.max(0), color=look["color"], alpha=0.15, linewidth=0
            )
            every = max(1, len(epochs) // 8)
            style = ("-", "--", "-.")[place % 3]
            curves.plot(
                epochs,
                percent.mean(0),
                style,
                label=name,
                linewidth=1.2,
                markevery=(place % every, every),
                **look,
            )
            ends.plot(percent[:, -1], np.full(len(percent), place), linestyle="", alpha=0.6, **look)
            ends.plot(percent[:, -1].mean(), place, "|", markersize=14, markeredgewidth=2, color="black")
            if name in printed:
                number = float(printed[name].removeprefix("<"))
                ends.axvline(number, color="gray", linestyle=":")
                ends.annotate(
                    f"paper: {printed[name]}",
                    (number, place),
                    (3, -9),
                    textcoords="offset points",
                    fontsize=NOTE,
                )
        curves.set_yscale("log")
        curves.yaxis.set_major_formatter("{x:g}")
        curves.yaxis.set_minor_formatter("{x:g}")
        curves.set_title(f"{panel} units", fontsize=LABEL)
        curves.set_xlabel("epoch", fontsize=LABEL)
        curves.set_ylabel("test error (%)", fontsize=LABEL)
        curves.legend(fontsize=NOTE)
        ends.set_title("after the last epoch: each training, and the mean", fontsize=LABEL)
        ends.set_xlabel("test error (%)", fontsize=LABEL)
        ends.set_yticks(range(len(errors)), errors, fontsize=NOTE)
        ends.set_ylim(len(errors) - 0.4, -0.6)
        for axis in (curves, ends):
            axis.grid(alpha=0.3, which="both")
            axis.tick_params(labelsize=NOTE, which="both", labelbottom=True)
    return figure


def deviations(frame: pd.DataFrame, choices: Sequence[str], tables: Sequence[str]) -> Figure:
    """Draw the distance of each choice's cells from the paper's, one panel per table.

    There is a dot for each cell, and a bar at the median size.

    Args:
        frame: As `blindspots.report.ablations.compare_choices` returns it.
        choices: The names of the choices, from top to bottom.
        tables: The tables, from left to right.
    Returns:
        The figure.
    """
    figure, axes = plt.subplots(
        1,
        len(tables),
        figsize=(3.2 * len(tables) + 1, 0.5 * len(choices) + 1.2),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axis, table in zip(axes[0], tables, strict=True):
        for place, choice in enumerate(choices):
            values = (
                frame.loc[(frame["table"] == table) & (frame["choice"] == choice), "deviation"].dropna().abs()
            )
            axis.plot(values, np.full(len(values), place), "o", alpha=0.35, markersize=4, color="C0")
            if len(values):
                axis.plot(values.median(), place, "|", markersize=16, markeredgewidth=2.5, color="C3")
        axis.set(title=table, xlabel="standard errors from the paper")
        axis.set_xscale("symlog", linthresh=1)
        axis.axvline(2.58, color="gray", linestyle=":")
        axis.grid(alpha=0.3, axis="x")
    axes[0, 0].set_yticks(range(len(choices)), choices)
    axes[0, 0].invert_yaxis()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, and close it.

    The file is written completely or not at all. Matplotlib's version is left out of it, as that would change
    its bytes.

    Args:
        figure: The figure.
        path: The file to be written.
    Raises:
        ArtifactError: If the file cannot be written.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(figure)
