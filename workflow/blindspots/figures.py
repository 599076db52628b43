"""Pictures, drawn without a display and with the same bytes from run to run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from blindspots.artifacts import whole_file


def image_pairs(blocks: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]], columns: int = 6) -> Figure:
    """Originals beside their distorted images, as in the paper's Figure 7: odd columns original, even columns distorted.

    blocks: caption -> (originals, distorted, what is written under each distorted image), (n, height, width) pixels.
    """
    rows = max(1, max(-(-len(originals) // columns) for originals, _, _ in blocks.values()))
    figure = plt.figure(figsize=(1.0 * 2 * columns, (1.12 * rows + 0.4) * len(blocks)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(blocks), 1))
    for part, (caption, (originals, distorted, notes)) in zip(parts, blocks.items(), strict=True):
        part.suptitle(caption, fontsize=11)
        axes = part.subplots(rows, 2 * columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        pairs = zip(axes[:, 0::2].flat, axes[:, 1::2].flat, originals, distorted, notes, strict=False)
        for left, right, original, image, note in pairs:
            left.imshow(original, cmap="gray", vmin=0, vmax=1)
            right.imshow(image, cmap="gray", vmin=0, vmax=1)
            right.set_title(note, fontsize=7, pad=2)
    return figure


def filters(weights: np.ndarray, columns: int = 20) -> Figure:
    """The (units, height, width) weights of a layer's units, each scaled by its own largest; 0 is gray."""
    rows = -(-len(weights) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(0.5 * columns, 0.5 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, weight in zip(axes.flat, weights, strict=False):
        largest = np.abs(weight).max() or 1
        axis.imshow(weight, cmap="gray", vmin=-largest, vmax=largest)
    return figure


def training_curves(histories: Mapping[str, Mapping[str, np.ndarray]], tolerance: float) -> Figure:
    """Loss, largest gradient component (with its tolerance) and training error of every network by iteration."""
    panels = {"loss": "loss with decay", "gradient_max": "largest gradient component", "error": "training error (%)"}
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        for name, history in histories.items():
            values = history[key] * (100 if key == "error" else 1)
            axis.plot(np.arange(1, len(values) + 1), values, label=name, linewidth=1.2)
        axis.set(xlabel="iteration", title=label)
        axis.set_yscale("symlog", linthresh=0.01) if key == "error" else axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[1].axhline(tolerance, color="gray", linestyle=":")
    axes[0].legend()
    return figure


def deviations(frame: pd.DataFrame, choices: Sequence[str], tables: Sequence[str]) -> Figure:
    """How far each choice's cells lie from the paper's, a panel a table: a dot a cell, the bar at their median size.

    frame: as `blindspots.ablations.compared` returns it.
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
            values = frame.loc[(frame["table"] == table) & (frame["choice"] == choice), "deviation"].dropna().abs()
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
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
