"""Gather the shards of one set of distorted images into one artifact.

The images themselves are left out. They stay in the shards.
"""

import numpy as np

from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    """Concatenate the arrays of the shards and write the artifact.

    Args:
        step: The run. Its input is `shards`, in their order.
    """
    parts: dict[str, list[np.ndarray]] = {}
    meanings, types = {}, {}
    for path in step.inputs["shards"]:
        with artifacts.read(path) as file:
            for name, array in file.items():
                if name != "images":
                    parts.setdefault(name, []).append(array[()])
                    meanings[name], types[name] = array.attrs["meaning"], array.dtype
    # `concatenate` drops the words of an enumeration, so the type of each array is restored.
    step.write(
        {
            name: Array(np.concatenate(values).astype(types[name]), meanings[name])
            for name, values in parts.items()
        }
    )


def main(argv=None) -> int:
    return run(body, "scripts.gather_shards", ("shards",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
