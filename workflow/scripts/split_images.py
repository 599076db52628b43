"""Split the training images into the paper's disjoint parts P1 and P2, stored as indices."""

from blindspots.data import splits
from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Step, run


def body(step: Step) -> None:
    """Draw the parts and write their indices.

    Args:
        step: The run. Its input is `data`. Its settings are `parts` (names and ranges) and `seed`.
    """
    with artifacts.read(step.input("data")) as file:
        images = len(file["train/labels"])
    parts = splits.split(images, step.settings["parts"], step.settings["seed"])
    step.write({name: Array(indices, "(n,) indices of training images") for name, indices in parts.items()})


def main(argv=None) -> int:
    return run(body, "scripts.split_images", ("data",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
