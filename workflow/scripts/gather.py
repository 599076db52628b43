"""The shards of one set of distorted images as one artifact, without the images, which stay in the shards."""

import numpy as np

from blindspots.steps import artifacts
from blindspots.steps.artifacts import Dataset
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    parts: dict[str, list[np.ndarray]] = {}
    meanings, types = {}, {}
    for path in step.inputs["shards"]:
        with artifacts.read(path) as file:
            for name, dataset in file.items():
                if name != "images":
                    parts.setdefault(name, []).append(dataset[()])
                    meanings[name], types[name] = dataset.attrs["meaning"], dataset.dtype
    # An enumeration keeps its words, which concatenate would drop.
    step.write({name: Dataset(np.concatenate(values).astype(types[name]), meanings[name]) for name, values in parts.items()})


def main(argv=None) -> int:
    return run(body, "scripts.gather", ("shards",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
