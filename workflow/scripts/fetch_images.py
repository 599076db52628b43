"""Obtain the IDX files of the image set, verified, from the first source that has them."""

import numpy as np

from blindspots.data import downloads, idx
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Step, StepError, run


def body(step: Step) -> None:
    """Obtain the four files, check them against the configuration and write the images and labels.

    Args:
        step: The run. Its settings are `files` (names and checksums), `image_shape`, `classes`, `train_size`
            and `test_size`. Unrecorded are the `sources`.
    Raises:
        StepError: If no source has the files, or if a file does not agree with the settings.
    """
    files = step.settings["files"]
    checksums = {file["name"]: file["sha256"] for file in files.values()}
    try:
        content = downloads.obtain(checksums, step.unrecorded["sources"], downloads.default_cache())
    except downloads.DownloadError as error:
        raise StepError(str(error)) from error
    arrays = {role: _parsed(role, file["name"], content[file["name"]]) for role, file in files.items()}
    stored = {}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        _check(part, images, labels, step.settings)
        stored[f"{part}/images"] = Array(images, "(n, height, width) pixels, 0 to 255")
        stored[f"{part}/labels"] = Array(labels, "(n,) classes")
    step.write(stored)


def _parsed(role: str, name: str, content: bytes) -> np.ndarray:
    try:
        return idx.parse(content)
    except ValueError as error:
        raise StepError(f"data.files.{role}: {name} is no such file as MNIST has: {error}") from error


def _check(part, images, labels, settings) -> None:
    expected = settings["image_shape"]
    if list(images.shape[1:]) != expected:
        raise StepError(f"the {part} images are {images.shape}; data.image_shape is {expected}")
    if labels.shape != images.shape[:1]:
        raise StepError(
            f"the {part} labels are {labels.shape} for {len(images)} images: "
            "there has to be one class for each; where a file has more about an image, save the classes alone"
        )
    if labels.max() >= settings["classes"]:
        raise StepError(
            f"the {part} labels go up to {labels.max()}; data.classes is {settings['classes']}, from 0 on: "
            "where labels begin with 1, save them one less"
        )
    if len(images) != settings[f"{part}_size"]:
        raise StepError(
            f"there are {len(images)} {part} images; data.{part}_size is {settings[f'{part}_size']}"
        )


def main(argv=None) -> int:
    return run(body, "scripts.fetch_images", (), argv)


if __name__ == "__main__":
    raise SystemExit(main())
