"""Feed every set of distorted images to every network."""

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
    result = {}
    for row, path in zip(step.settings["rows"], step.inputs["distorted"], strict=True):
        with artifacts.read(path) as file:
            success, labels = file["success"][()], file["labels"][()]
            index, pixels = file["index"][()], torch.from_numpy(file["images"][()]).to(device)
        result[f"index/{row}"] = Dataset(index[success], f"(n,) places in the set of the {success.sum()} images of {row}")
        result[f"failures/{row}"] = Dataset((~success).sum(), "images without an adversarial example, left out of the rates")
        for column, network in columns.items():
            wrong = classify(network, pixels).cpu().numpy() != labels
            meaning = f"(n,) {column} misclassifies the image of {row}; their mean is the error rate"
            result[f"misclassified/{row}/{column}"] = Dataset(wrong[success], meaning)
    step.write(result)


def main(argv=None) -> int:
    return run(body, "scripts.evaluate_distorted", ("distorted", "networks"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
