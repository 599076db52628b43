"""Pictures, drawn without a display and with the same bytes from run to run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ["MPLBACKEND"] = (
    "Agg"  # before the import, which fails for a backend of a notebook that it cannot find
)
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from blindspots.steps.artifacts import whole_file

DPI = 200
TITLE, LABEL, NOTE = 11, 9, 7  # sizes of type, in points


Examples = tuple[
    np.ndarray, np.ndarray, Sequence[str]
]  # originals, what was made of them, what is written under each


def image_pairs(blocks: Mapping[str, Examples], title: str, columns: int = 6) -> Figure:
    """Originals beside what was made of them, as in the paper's Figure 7; `columns` pairs stand side by side.

    blocks: caption -> examples, (n, height, width) pixels in [0, 1], one size for all.
    """
    pairs = {
        caption: ((originals, distorted), notes) for caption, (originals, distorted, notes) in blocks.items()
    }
    return _groups(pairs, ("original", "distorted"), title, columns, small=0.75)


def image_rows(rows: Mapping[str, np.ndarray], title: str, columns: int = 1) -> Figure:
    """Rows of images, each under its label, as in the paper's Figures 1 to 4; `columns` rows stand side by side.

    rows: label -> images, (top, height, width) or (top, 3, height, width) pixels in [0, 1], one size for all.
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
    """The (units, height, width) weights of a layer's units, each scaled by its own largest; 0 is gray."""
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
    """The paper's Figure 5: original, magnified difference and what was made of it; `columns` examples stand side by side.

    blocks: caption -> examples, (n, height, width) or (n, 3, height, width) pixels in [0, 1], one size for all.
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
    """Groups of images, a note under each, in blocks under their captions; `words` stand above the images of a group.

    blocks: caption -> (for each of the words the images (n, ...), the n notes). small: inches, at least as wide as a word.
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
    """x' - x times a factor, around the gray of 128/255, cut to [0, 1]: arrays of pixels of one shape."""
    return (128 / 255 + factor * (adversarial - originals)).clip(0, 1)


_GAP, _WIDE_GAP, _MARGIN = 0.03, 0.2, 0.08  # between images, between groups of them, around all: inches
_NARROWEST = 4.0  # inches that a page has room for words on
_LINE = 1.3  # from one line of type to the next, as a multiple of its size


class _Picture(NamedTuple):
    """An image, (height, width) or (3, height, width) pixels in [0, 1], with its place in inches."""

    left: float
    width: float
    height: float
    pixels: np.ndarray


class _Text(NamedTuple):
    """Words to be broken into lines of a width, with their place in inches."""

    left: float
    width: float
    words: str
    size: float
    align: str = "center"

    @property
    def lines(self) -> list[str]:
        lines = [""]
        for word in self.words.split():
            longer = f"{lines[-1]} {word}".strip()
            points, _, _ = text_to_path.get_text_width_height_descent(
                longer, FontProperties(size=self.size), ismath=False
            )
            fits = (
                points <= 0.96 * 72 * self.width
            )  # as drawn, letters on whole pixels come out a little wider
            lines[-1:] = [longer] if fits or not lines[-1] else [lines[-1], word]
        return lines

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE * self.size / 72


_BLANK: list[_Picture | _Text] = []  # a band of nothing, between others


def _cell(images: np.ndarray, small: float) -> tuple[float, float]:
    """Width and height in inches for each of some images: photographs have more to show than `small` ones."""
    height, width = images.shape[-2:]
    across = small if width < 100 else 1.1
    return across, across * height / width


def _sheet(width: float, title: str, bands: Sequence[Sequence[_Picture | _Text]]) -> Figure:
    """A page of a width in inches: a title, and below it bands, each as high as what is in it.

    Placed by hand, in one pair of axes in inches: constrained layout does not keep images close, and axes for each of
    hundreds of images take seconds.
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
    """Loss, largest gradient component (with its tolerance, if there is one) and training error of every network by what it
    cost so far.

    Networks trained in minibatches have no gradient on record.
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
    """Of one way of training."""

    epochs: np.ndarray  # (points,) after which they were measured
    values: np.ndarray  # (seeds, points), as fractions


def errors_by_epoch(
    panels: Mapping[str, Mapping[str, Errors]], printed: Mapping[str, str], title: str
) -> Figure:
    """Test errors by epoch, the mean over the seeds within their range; at the right each seed's last one.

    panels:  a panel's name -> each network's errors.
    printed: the numbers in percent, as the paper prints them, of those networks that it has.
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
    """How far each choice's cells lie from the paper's, a panel a table: a dot a cell, the bar at their median size.

    frame: as `blindspots.report.ablations.compared` returns it.
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
    """Write a PNG, whole or not at all, without the date that would change its bytes."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(figure)
