"""Draw originals beside their adversarial examples for every network, and beside noise (Figures 7 and 5)."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from blindspots.data import pictures
from blindspots.report import figures
from blindspots.steps import artifacts, image_sets
from blindspots.steps.step import Step, log, run

SHOWN, PHOTOGRAPHS_SHOWN = 18, 64  # the largest numbers of examples shown for each network
MAGNIFIED = 10  # the factor by which the differences of photographs are magnified


def body(step: Step) -> None:
    """Draw the figure and save it.

    Args:
        step: The run. Its inputs are `data`, `gathered` (one file for each row), `shards` (those of all rows,
            row after row) and `evaluation`. Its settings are `table`, `rows`, `columns` and `images` (the
            set).
    """
    settings = step.settings
    with artifacts.read(step.input("evaluation")) as file:
        wrong = {
            name: {column: w[()].mean() for column, w in row.items()}
            for name, row in file["misclassified"].items()
        }
    blocks = {}
    rows = zip(settings["rows"], step.inputs["gathered"], _of_rows(step), strict=True)
    for number, (row, gathered, shards) in enumerate(rows):
        with artifacts.read(gathered) as file:
            sizes = file["distortion"][()]
            size, found = float(np.nanmean(sizes)), np.count_nonzero(~np.isnan(sizes))
        judges = [row["network"]] if row["network"] else settings["columns"]
        accuracy = ", ".join(f"{judge} {100 * (1 - wrong[row['name']][judge]):.1f} %" for judge in judges)
        of = f"{row['name']}, {settings['images']} set, n = {found}"
        blocks[f"({_letter(number)}) {of}: stddev = {size:.4f}; accuracy {accuracy}"] = _examples(
            step, shards
        )
    photographs = next(iter(blocks.values()))[0].ndim == 4
    title = f"{settings['table']}: images distorted for each network, and by noise"
    drawn = figures.magnified(blocks, title, MAGNIFIED) if photographs else figures.image_pairs(blocks, title)
    figures.save(drawn, step.output[0])
    log.info("wrote %s", step.output[0])


def _of_rows(step: Step) -> list[list[Path]]:
    """The shards of each row. All rows have the same number, and they follow each other in the input."""
    shards, rows = step.inputs["shards"], len(step.settings["rows"])
    each = len(shards) // rows
    return [shards[row * each : (row + 1) * each] for row in range(rows)]


def _examples(step: Step, shards: Sequence[Path]) -> figures.Examples:
    """Some originals of the shards, the images made from them, and the note under each pair."""
    successes = []
    for shard in shards:
        with artifacts.read(shard) as file:
            successes.append(np.flatnonzero(file["success"][()]))
            photographs = file["images"].ndim == 4
    count, total = PHOTOGRAPHS_SHOWN if photographs else SHOWN, sum(map(len, successes))
    shown = np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))
    index, images, classes = [], [], []
    ends = np.cumsum([0, *map(len, successes)])
    for shard, places, start, end in zip(shards, successes, ends, ends[1:], strict=False):
        here = places[shown[(start <= shown) & (shown < end)] - start]
        with artifacts.read(shard) as file:
            index.append(file["index"][here])
            images.append(file["images"][here])
            classes += zip(*(file[key][here] for key in ("labels", "target") if key in file), strict=True)
    originals, _ = image_sets.read(step.input("data"), step.settings["images"], np.concatenate(index))
    name = pictures.class_names().__getitem__ if photographs else str
    notes = [" → ".join(map(name, each)) for each in classes]
    return originals, np.concatenate(images), notes


def _letter(number: int) -> str:
    """The letter of a row, from 0 on: a to z, then aa to zz, and so on."""
    return ascii_lowercase[number % 26] * (1 + number // 26)


def main(argv=None) -> int:
    return run(body, "scripts.plot_adversarial", ("data", "gathered", "shards", "evaluation"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
