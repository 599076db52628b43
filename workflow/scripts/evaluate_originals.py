"""Classify undistorted images by every network.

The image sets are the splits of the training set, the whole training set (`train`), and the test set.
"""

from functools import partial

import torch

from blindspots.networks.evaluation import classify
from blindspots.parallel.workers import Workers
from blindspots.steps import image_sets, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.device import prepare
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    """Classify the images of every row by every network and write which are misclassified.

    Args:
        step: The run. Its inputs are `data`, `splits` and `networks`. Its settings are `rows` (names of
            splits, `train` or `test`), `columns` (the networks' names) and `device`.
    """
    device = prepare(step, step.settings["device"])
    columns = [trained_networks.read(path).to(device) for path in step.inputs["networks"]]
    result = {}
    with Workers(step.threads) as workers:
        for row in step.settings["rows"]:
            part = slice(None) if row == "test" else image_sets.read_split(step.input("splits"), row)
            images, labels = image_sets.read(step.input("data"), "test" if row == "test" else "train", part)
            pixels = torch.from_numpy(images).to(device)
            predicted = workers.map(partial(classify, images=pixels), columns)
            for column, classes in zip(step.settings["columns"], predicted, strict=True):
                meaning = f"(n,) {column} misclassifies the image of {row}; their mean is the error rate"
                result[f"misclassified/{row}/{column}"] = Array(classes.cpu().numpy() != labels, meaning)
    step.write(result)


def main(argv=None) -> int:
    return run(body, "scripts.evaluate_originals", ("data", "splits", "networks"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
