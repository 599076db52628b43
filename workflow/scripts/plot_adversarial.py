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
    for letter, row, path in zip("abcdefghijklm", settings["rows"], step.inputs["distorted"], strict=False):
        with artifacts.read(path) as file:
            index, images, success = file["index"][()], file["images"][()], file["success"][()]
            size, labels = float(np.nanmean(file["distortion"][()])), file["labels"][()]
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
    return run(body, "scripts.plot_adversarial", ("data", "distorted", "evaluation"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
