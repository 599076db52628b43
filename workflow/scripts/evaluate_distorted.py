"""Classify every set of distorted images by every network, shard by shard."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from blindspots.networks.evaluation import classify
from blindspots.parallel.workers import Workers
from blindspots.steps import artifacts, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.device import prepare
from blindspots.steps.step import Step, run


class Evaluated(NamedTuple):
    """The result of a row of the table.

    Only the n images that have an adversarial example are in the arrays.

    Attributes:
        index: Places of the images in their set, (n,).
        failures: The number of images without an adversarial example.
        misclassified: For each network, which of the images it misclassifies, (n,), booleans.
    """

    index: np.ndarray
    failures: int
    misclassified: dict[str, np.ndarray]


def body(step: Step) -> None:
    """Classify the images of every row by every network and write which are misclassified.

    Args:
        step: The run. Its inputs are `distorted` (the shards of all rows, row after row) and `networks`. Its
            settings are `rows` (each with its name and number of shards), `columns` (the networks' names) and
            `device`.
    """
    device = prepare(step, step.settings["device"])
    columns = {
        column: trained_networks.read(path).to(device)
        for column, path in zip(step.settings["columns"], step.inputs["networks"], strict=True)
    }
    files = iter(step.inputs["distorted"])
    rows = {row["name"]: list(islice(files, row["shards"])) for row in step.settings["rows"]}
    result = {}
    with Workers(step.threads) as workers:
        evaluated = workers.map(partial(_evaluate, columns, device), rows.values())
        for row, (index, failures, misclassified) in zip(rows, evaluated, strict=True):
            result[f"index/{row}"] = Array(
                index, f"(n,) places in the set of the {len(index)} images of {row}"
            )
            result[f"failures/{row}"] = Array(
                failures, "images without an adversarial example, left out of the rates"
            )
            for column, wrong in misclassified.items():
                meaning = f"(n,) {column} misclassifies the image of {row}; their mean is the error rate"
                result[f"misclassified/{row}/{column}"] = Array(wrong, meaning)
    step.write(result)


def _evaluate(columns: Mapping[str, nn.Module], device: torch.device, shards: Sequence[Path]) -> Evaluated:
    indices, failures, wrong = [], 0, {column: [] for column in columns}
    for path in shards:
        with artifacts.read(path) as file:
            success, labels = file["success"][()], file["labels"][()]
            index, pixels = file["index"][()], torch.from_numpy(file["images"][()]).to(device)
        indices.append(index[success])
        failures += (~success).sum()
        for column, network in columns.items():
            wrong[column].append((classify(network, pixels).cpu().numpy() != labels)[success])
    return Evaluated(
        np.concatenate(indices), failures, {column: np.concatenate(parts) for column, parts in wrong.items()}
    )


def main(argv=None) -> int:
    return run(body, "scripts.evaluate_distorted", ("distorted", "networks"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
