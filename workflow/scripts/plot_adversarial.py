"""Originals beside their adversarial examples for every network, and beside noise (the paper's Figure 7)."""

import numpy as np

from blindspots import artifacts, datasets, figures
from blindspots.step import Step, log, run

PAIRS = 18


def body(step: Step) -> None:
    settings = step.settings
    originals, _ = datasets.read(step.input("data"), settings["images"])
    with artifacts.read(step.input("evaluation")) as file:
        wrong = {name: {column: w[()].mean() for column, w in row.items()} for name, row in file["misclassified"].items()}
    blocks = {}
    rows = zip(settings["rows"], step.inputs["gathered"], step.inputs["shards"], strict=True)
    for letter, (row, gathered, shard) in zip("abcdefghijklm", rows, strict=False):
        with artifacts.read(gathered) as file:
            size = float(np.nanmean(file["distortion"][()]))
        with artifacts.read(shard) as file:
            index, images, success = file["index"][()], file["images"][()], file["success"][()]
            labels = file["labels"][()]
            targets = file["target"][()] if "target" in file else None
        found = np.flatnonzero(success)
        shown = np.sort(np.random.default_rng(0).choice(found, min(PAIRS, len(found)), replace=False))
        notes = [str(labels[i]) for i in shown] if targets is None else [f"{labels[i]} → {targets[i]}" for i in shown]
        name = row["name"]
        judges = [row["network"]] if row["network"] else settings["columns"]
        accuracy = ", ".join(f"{judge} {100 * (1 - wrong[name][judge]):.1f} %" for judge in judges)
        blocks[f"({letter}) {name}: stddev = {size:.3f}; accuracy {accuracy}"] = (
            originals[index[shown]],
            images[shown],
            notes,
        )
    figures.save(figures.image_pairs(blocks), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_adversarial", ("data", "gathered", "shards", "evaluation"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
