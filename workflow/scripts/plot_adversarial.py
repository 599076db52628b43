"""Originals beside their adversarial examples for every network, and beside noise (the paper's Figures 7 and 5)."""

from pathlib import Path

import numpy as np

from blindspots import artifacts, datasets, figures, pictures
from blindspots.step import Step, log, run

SHOWN, PHOTOGRAPHS_SHOWN = 18, 6  # examples of each network
MAGNIFIED = 10  # times, the difference of photographs


def body(step: Step) -> None:
    settings = step.settings
    with artifacts.read(step.input("evaluation")) as file:
        wrong = {name: {column: w[()].mean() for column, w in row.items()} for name, row in file["misclassified"].items()}
    blocks = {}
    rows = zip(settings["rows"], step.inputs["gathered"], step.inputs["shards"], strict=True)
    for letter, (row, gathered, shard) in zip("abcdefghijklm", rows, strict=False):
        with artifacts.read(gathered) as file:
            sizes = file["distortion"][()]
            size, found = float(np.nanmean(sizes)), np.count_nonzero(~np.isnan(sizes))
        judges = [row["network"]] if row["network"] else settings["columns"]
        accuracy = ", ".join(f"{judge} {100 * (1 - wrong[row['name']][judge]):.1f} %" for judge in judges)
        of = f"{row['name']}, {settings['images']} set, n = {found}"
        blocks[f"({letter}) {of}: stddev = {size:.4f}; accuracy {accuracy}"] = _examples(step, shard)
    photographs = next(iter(blocks.values()))[0].ndim == 4
    title = f"{settings['table']}: images distorted for each network, and by noise"
    picture = figures.magnified(blocks, title, MAGNIFIED) if photographs else figures.image_pairs(blocks)
    figures.save(picture, step.output[0])
    log.info("wrote %s", step.output[0])


def _examples(step: Step, shard: Path) -> figures.Examples:
    """Some originals of a shard, what was made of them, and what is written under each."""
    with artifacts.read(shard) as file:
        labels, success = file["labels"][()], file["success"][()]
        targets = file["target"][()] if "target" in file else None
        found = np.flatnonzero(success)
        photographs = file["images"].ndim == 4
        count = min(PHOTOGRAPHS_SHOWN if photographs else SHOWN, len(found))
        shown = np.sort(np.random.default_rng(0).choice(found, count, replace=False))
        index, images = file["index"][()][shown], file["images"][()][shown]
    originals, _ = datasets.read(step.input("data"), step.settings["images"], index)
    classes = [labels[shown]] if targets is None else [labels[shown], targets[shown]]
    named = [[pictures.CLASSES[c] if photographs else str(c) for c in each] for each in classes]
    return originals, images, [" → ".join(words) for words in zip(*named, strict=True)]


def main(argv=None) -> int:
    return run(body, "scripts.plot_adversarial", ("data", "gathered", "shards", "evaluation"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
