"""Originals beside their adversarial examples for every network, and beside noise (after the paper's Figure 7)."""

import numpy as np

from blindspots import artifacts, datasets, figures
from blindspots.step import Step, log, run

PAIRS = 18


def body(step: Step) -> None:
    settings = step.settings
    originals, _ = datasets.read(step.input("data"), settings["images"])
    blocks = {}
    for row, path in zip(settings["rows"], step.inputs["distorted"], strict=True):
        with artifacts.read(path) as file:
            index, images, success = file["index"][()], file["images"][()], file["success"][()]
            size, labels = float(np.nanmean(file["distortion"][()])), file["labels"][()]
            targets = file["target"][()] if "target" in file else None
        shown = np.flatnonzero(success)[:PAIRS]
        notes = [str(labels[i]) for i in shown] if targets is None else [f"{labels[i]} → {targets[i]}" for i in shown]
        blocks[f"{row}: stddev = {size:.3f}"] = (originals[index[shown]], images[shown], notes)
    figures.save(figures.image_pairs(blocks), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_adversarial", ("data", "distorted"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
