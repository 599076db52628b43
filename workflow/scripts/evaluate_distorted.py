"""Feed every set of distorted images to every network, shard by shard."""

import itertools

import numpy as np
import torch

from blindspots import artifacts, networks
from blindspots.artifacts import Dataset
from blindspots.device import prepare
from blindspots.evaluation import classify
from blindspots.step import Step, run


def body(step: Step) -> None:
    device = prepare(step, step.settings["device"])
    columns = {
        column: networks.read(path).to(device)
        for column, path in zip(step.settings["columns"], step.inputs["networks"], strict=True)
    }
    result, files = {}, iter(step.inputs["distorted"])
    for row, shards in ((row["name"], row["shards"]) for row in step.settings["rows"]):
        indices, failures, wrong = [], 0, {column: [] for column in columns}
        for path in itertools.islice(files, len(shards)):
            with artifacts.read(path) as file:
                success, labels = file["success"][()], file["labels"][()]
                index, pixels = file["index"][()], torch.from_numpy(file["images"][()]).to(device)
            indices.append(index[success])
            failures += (~success).sum()
            for column, network in columns.items():
                wrong[column].append((classify(network, pixels).cpu().numpy() != labels)[success])
        index = np.concatenate(indices)
        result[f"index/{row}"] = Dataset(index, f"(n,) places in the set of the {len(index)} images of {row}")
        result[f"failures/{row}"] = Dataset(failures, "images without an adversarial example, left out of the rates")
        for column, parts in wrong.items():
            meaning = f"(n,) {column} misclassifies the image of {row}; their mean is the error rate"
            result[f"misclassified/{row}/{column}"] = Dataset(np.concatenate(parts), meaning)
    step.write(result)


def main(argv=None) -> int:
    return run(body, "scripts.evaluate_distorted", ("distorted", "networks"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
