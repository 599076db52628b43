"""Make the configuration for your own data set: python -m blindspots.own_data FOLDER own.yaml

FOLDER has four IDX files, plain or gzipped. Their names contain train or test (or t10k), and images or
labels. The files of MNIST, Fashion-MNIST, KMNIST, EMNIST and QMNIST have such names. The workflow needs
labels from 0 on, one class for each image and nothing more about it, and unsigned bytes. Files that differ
from this are converted, and are written into a folder beside own.yaml. A picture of the first images of each
class is written there too. Check that the images stand upright.

    snakemake --cores 8 results/table4.csv --configfile own.yaml --directory results/own
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from blindspots.config.errors import ConfigError
from blindspots.config.loading import validated
from blindspots.config.merging import merged
from blindspots.data import idx
from blindspots.report import figures
from blindspots.steps.fingerprint import WORKFLOW

_PARTS = {"train": ("train",), "test": ("t10k", "test")}
_SHOWN = 10  # images per class, at most


class OwnDataError(Exception):
    """The files cannot be used; the message gives the reason and the remedy."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None for those of the command line.
    Returns:
        The exit status. It is 1 if there is no configuration, or if it needs further changes.
    """
    parser = argparse.ArgumentParser(
        prog="python -m blindspots.own_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path, metavar="own.yaml")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="files whose name begins so, as emnist-letters"
    )
    parser.add_argument("--transpose", action="store_true", help="rows are columns, as in EMNIST")
    options = parser.parse_args(argv)
    if options.output.suffix not in (".yaml", ".yml") or not options.output.parent.is_dir():
        parser.error(f"{options.output} is no name ending in .yaml, in a folder that is there")
    try:
        paths = found(options.folder, options.only)
        arrays = from_zero({role: usable(role, path, options.transpose) for role, path in paths.items()})
        written = described(arrays, paths, options.output)
    except (OwnDataError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    default = yaml.safe_load((WORKFLOW.parent / "config/config.yaml").read_text(encoding="utf-8"))
    written |= fewer(
        default["ablations"]["choices"], min(written["data"]["train_size"], written["data"]["test_size"])
    )
    options.output.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    sheet = options.output.with_suffix(".png")
    figures.save(figures.image_rows(first_images(arrays), f"The first images of {options.folder}"), sheet)
    print(
        f"{options.output} is the configuration. Look at {sheet}: do the images stand upright, "
        "under the right classes?"
    )
    try:
        config = validated(merged(default, written))
        for name in config.networks:
            config.check_network(name)
    except ConfigError as error:
        print(f"What it still needs, as its images are not MNIST's: {error}", file=sys.stderr)
        return 1
    return 0


def found(folder: Path, only: str = "") -> dict[str, Path]:
    """Find the file of each role: `train_images`, `train_labels`, `test_images` and `test_labels`.

    Args:
        folder: The folder.
        only: The beginning of the files' names.
    Returns:
        The path by role.
    Raises:
        OwnDataError: If there is no such folder, or not exactly one file for each role.
    """
    if not folder.is_dir():
        raise OwnDataError(f"{folder.absolute()} is no folder")
    names = {
        path.name.removesuffix(".gz"): path
        for path in sorted(folder.iterdir(), reverse=True)
        if path.is_file()
    }
    roles = {}
    for part, words in _PARTS.items():
        for kind in ("images", "labels"):
            fitting = [
                path
                for name, path in names.items()
                if name.startswith(only)
                and any(word in name for word in words)
                and kind in name
                and "idx" in name
            ]
            if len(fitting) != 1:
                there = ", ".join(sorted(path.name for path in fitting)) or "there is none"
                raise OwnDataError(
                    f"{folder} needs one IDX file of {part} {kind}: {there}. "
                    f"Its name has {' or '.join(words)}, {kind} and idx in it; "
                    "--only chooses among several sets"
                )
            roles[f"{part}_{kind}"] = fitting[0]
    return roles


def usable(role: str, path: Path, transpose: bool) -> np.ndarray:
    """Read a file as the array that the workflow reads.

    Args:
        role: The file's role.
        path: The file.
        transpose: Whether rows and columns of the images are exchanged.
    Returns:
        The pixels, (n, height, width), or the classes, (n,), as unsigned bytes.
    Raises:
        OwnDataError: If the file is not such an array, and cannot be converted to it.
    """
    try:
        array = idx.parse_any(idx.decompress(path.read_bytes()))
    except ValueError as error:
        raise OwnDataError(f"{path}: {error}") from error
    if role.endswith("images"):
        return _pixels(path, array.swapaxes(1, 2) if transpose and array.ndim == 3 else array)
    return _classes(path, array)


def _pixels(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or not array.size:
        raise OwnDataError(f"{path} has the shape {array.shape}: grey images are (n, height, width)")
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        array = np.rint(255 * array)
    if array.min() < 0 or array.max() > 255 or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        raise OwnDataError(
            f"{path} has pixels from {array.min()} to {array.max()}: bytes go to 255, fractions from 0 to 1"
        )
    return array.astype(np.uint8)


def _classes(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 8 and array.dtype == ">i4":
        array = array[:, 0]  # QMNIST has the class, and seven more numbers about the writer.
    if array.ndim != 1 or not array.size:
        raise OwnDataError(f"{path} has the shape {array.shape}: labels are (n,), one class for each image")
    if array.min() < 0 or array.max() > 255 or (array != np.rint(array)).any():
        raise OwnDataError(
            f"{path} has labels from {array.min()} to {array.max()}: classes are whole numbers from 0 on"
        )
    return array.astype(np.uint8)


def from_zero(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Let the classes begin with 0 if they begin with 1, as in the letters of EMNIST.

    Args:
        arrays: The arrays by role.
    Returns:
        The arrays by role, as unsigned bytes.
    """
    first = min(arrays[role].min() for role in ("train_labels", "test_labels"))
    return {
        role: array - 1 if role.endswith("labels") and first == 1 else array for role, array in arrays.items()
    }


def described(arrays: Mapping[str, np.ndarray], paths: Mapping[str, Path], output: Path) -> dict:
    """Return the differences from config/config.yaml.

    Files that had to be changed are written into a folder beside `output`.

    Args:
        arrays: The arrays by role.
        paths: The original files by role.
        output: The file of the configuration.
    Returns:
        The changed keys of the configuration.
    Raises:
        OwnDataError: If the arrays do not fit each other, or the folder for changed files exists.
    """
    train, test = arrays["train_images"], arrays["test_images"]
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if len(images) != len(labels):
            raise OwnDataError(f"there are {len(images)} {part} images and {len(labels)} {part} labels")
    if train.shape[1:] != test.shape[1:]:
        raise OwnDataError(f"the train images are {train.shape[1:]}, the test images {test.shape[1:]}")
    classes = {part: set(np.unique(arrays[f"{part}_labels"]).tolist()) for part in ("train", "test")}
    count = max(classes["train"] | classes["test"]) + 1
    if missing := sorted(set(range(count)) - classes["train"]):
        raise OwnDataError(
            f"no train image is of class {', '.join(map(str, missing))}: classes are all numbers from 0 on"
        )
    contents = {role: idx.serialise(array) for role, array in arrays.items()}
    folder = next(iter(paths.values())).parent.absolute()
    names = {role: path.name.removesuffix(".gz") for role, path in paths.items()}
    if any(idx.decompress(path.read_bytes()) != contents[role] for role, path in paths.items()):
        # The suffix is needed: the folder of the original files may have the name of own.yaml without .yaml.
        folder = output.absolute().with_name(f"{output.stem}_files")
        if folder.exists():
            raise OwnDataError(
                f"{folder} is there already, where the changed files would be written: move it away"
            )
        folder.mkdir()
        for role, content in contents.items():
            (folder / names[role]).write_bytes(content)
    half = len(train) // 2
    return {
        "data": {
            "classes": count,
            "image_shape": list(train.shape[1:]),
            "train_size": len(train),
            "test_size": len(test),
            "files": {role: {"name": names[role], "sha256": idx.sha256(contents[role])} for role in contents},
            "sources": [{"kind": "folder", "path": str(folder)}],
        },
        "splits": {"parts": {"P1": [0, half], "P2": [half, len(train)]}},
        "compare_with_paper": False,
    }


def fewer(choices: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return smaller samples for the ablations that ask for more images than there are.

    Args:
        choices: The ablations by name.
        images: The number of images in the smaller set.
    Returns:
        The changed keys of the configuration.
    """
    sizes = {name: choice.get("attack", {}).get("sample") for name, choice in choices.items()}
    changed = {
        name: {"attack": {"sample": images}}
        for name, size in sizes.items()
        if isinstance(size, int) and size > images
    }
    return {"ablations": {"choices": changed}} if changed else {}


def first_images(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Select the first training images of each class.

    Args:
        arrays: The arrays by role.
    Returns:
        The images by label, (n, height, width), in [0, 1]. A class with fewer images has all of them.
    """
    images, labels = arrays["train_images"], arrays["train_labels"]
    return {f"class {one}": images[np.flatnonzero(labels == one)[:_SHOWN]] / 255 for one in np.unique(labels)}


if __name__ == "__main__":
    raise SystemExit(main())
