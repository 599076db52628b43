"""Obtain photographs and cut them to the size of the networks' images.

The photographs are verified files, or the files of a folder.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from blindspots.data import downloads, idx, pictures
from blindspots.steps import image_sets
from blindspots.steps.artifacts import Array
from blindspots.steps.step import Progress, Step, StepError, log, run


def body(step: Step) -> None:
    """Obtain the photographs and write their pixels, classes, names and checksums.

    Args:
        step: The run. Its settings are `folder`, `files`, `label`, `classes`, `sample`, `seed`, `resize` and
            `size`. Unrecorded are the `sources`.
    Raises:
        StepError: If the photographs cannot be obtained or read, or if their classes cannot be determined.
    """
    settings = step.settings
    names = _names(settings)
    try:
        labels = pictures.classes(names, settings["label"], settings["classes"])
    except ValueError as error:
        raise StepError(f"pictures.label: {error}") from error
    chosen = image_sets.sample(len(names), settings["sample"], settings["seed"])
    names, labels = [names[i] for i in chosen], [labels[i] for i in chosen]
    images, digests, progress = [], [], Progress()
    for name, content in _contents(step, names):
        try:
            images.append(pictures.prepare(content, settings["resize"], settings["size"]))
        except ValueError as error:
            raise StepError(f"{name}: {error}") from error
        digests.append(idx.sha256(content))
        progress("%d of %d pictures", len(images), len(names))
    step.write(
        {
            "pictures/images": Array(
                np.stack(images), "(n, 3, height, width) pixels, 0 to 255: red, green, blue"
            ),
            "pictures/labels": Array(np.array(labels, dtype=np.uint16), "(n,) classes"),
            "pictures/names": Array([name.encode() for name in names], "(n,) the files that they were"),
            "pictures/sha256": Array([digest.encode() for digest in digests], "(n,) of those files"),
        }
    )


def _names(settings: dict) -> list[str]:
    """The sorted names of all photographs that the settings list, or that are in the settings' folder."""
    if not settings["folder"]:
        return sorted(settings["files"])
    folder = Path(settings["folder"]).expanduser()
    if not folder.is_dir():
        raise StepError(f"pictures.folder: {folder} is no folder: name one that has the pictures, or none")
    names, left_out = [], Counter()
    for path in _files(folder):
        # Hidden files are, for example, macOS's ._name.jpg and the files in .ipynb_checkpoints.
        if any(part.startswith(".") for part in path.parts):
            left_out["hidden"] += 1
        elif path.suffix.lower() in pictures.KINDS:
            names.append(path.as_posix())
        else:
            left_out[path.suffix.lower() or path.name] += 1
    for name in names:
        if not name.isprintable():  # for example, if its bytes have another encoding than the system's
            raise StepError(f"pictures.folder: {name!r} is no readable name: rename that file")
    if not names:
        raise StepError(f"pictures.folder: {folder} has no picture ({', '.join(pictures.KINDS)})")
    if left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())
        log.info("%d pictures in %s; left out: %s", len(names), folder, kinds)
    return sorted(names)


def _files(folder: Path) -> Iterator[Path]:
    """All files of a folder, relative to it.

    Links to folders are followed, except those that lead back to a folder above.
    """
    root = folder.absolute()
    for top, folders, files in os.walk(root, followlinks=True):
        above = {path.resolve() for path in (Path(top), *Path(top).parents)}
        folders[:] = [name for name in folders if Path(top, name).resolve() not in above]
        yield from (Path(top, name).relative_to(root) for name in files)


def _contents(step: Step, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each photograph."""
    settings = step.settings
    if settings["folder"]:
        for name in names:
            yield name, Path(settings["folder"], name).expanduser().read_bytes()
        return
    checksums = {name: settings["files"][name] for name in names}
    try:
        content = downloads.obtain(checksums, step.unrecorded["sources"], downloads.default_cache())
    except downloads.DownloadError as error:
        raise StepError(str(error)) from error
    yield from ((name, content[name]) for name in names)


def main(argv=None) -> int:
    return run(body, "scripts.fetch_pictures", (), argv)


if __name__ == "__main__":
    raise SystemExit(main())
