"""Obtain the data set's IDX files, verified, from the first source that has them."""

from blindspots import idx, sources
from blindspots.artifacts import Dataset
from blindspots.step import Step, StepError, run


def body(step: Step) -> None:
    files = step.settings["files"]
    checksums = {file["name"]: file["sha256"] for file in files.values()}
    try:
        content = sources.obtain(checksums, step.unrecorded["sources"], sources.default_cache())
        arrays = {role: idx.parse(content[file["name"]]) for role, file in files.items()}
    except (sources.SourceError, ValueError) as error:
        raise StepError(str(error)) from error
    datasets = {}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        _check(part, images, labels, step.settings)
        datasets[f"{part}/images"] = Dataset(images, "(n, height, width) pixels, 0 to 255")
        datasets[f"{part}/labels"] = Dataset(labels, "(n,) classes")
    step.write(datasets)


def _check(part, images, labels, settings) -> None:
    expected = settings["image_shape"]
    if list(images.shape[1:]) != expected or labels.shape != images.shape[:1]:
        raise StepError(f"the {part} images are {images.shape} with labels {labels.shape}; data.image_shape is {expected}")
    if labels.max() >= settings["classes"]:
        raise StepError(f"the {part} labels go up to {labels.max()}; data.classes is {settings['classes']}")
    if len(images) != settings[f"{part}_size"]:
        raise StepError(f"there are {len(images)} {part} images; data.{part}_size is {settings[f'{part}_size']}")


def main(argv=None) -> int:
    return run(body, "scripts.fetch", (), argv)


if __name__ == "__main__":
    raise SystemExit(main())
