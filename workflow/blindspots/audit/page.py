"""The audit page, on which a reader finds where a number comes from: the parts that its template cannot make.

These are the images of each cell, taken from the artifacts of the first replicate, and the source of the
code.
"""

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jinja2
import numpy as np

# The import fails if the environment names the backend of a notebook that is not installed here.
os.environ["MPLBACKEND"] = "Agg"
import matplotlib.image

from blindspots.audit.records import Run
from blindspots.report.kinds import KINDS
from blindspots.steps import artifacts, image_sets
from blindspots.steps.fingerprint import WORKFLOW, normalised

SHOWN = 6  # images per cell, at most
THUMBNAIL = 96  # pixels of a side, at most
GAP = 128  # the gray level of the border around each image


class Examples(NamedTuple):
    """The images that a cell's array is about.

    Attributes:
        of: The number of all such images. Only the first few of them are here.
        part: The image set, such as train or test.
        labels: The classes, (n,), integers.
        targets: The target classes of the attack, (n,), integers. Empty for noise and for undistorted images.
        rows: The original images and, if there are any, the distorted images, each (n, ...), in bytes.
    """

    of: int
    part: str
    labels: Sequence[int]
    targets: Sequence[int]
    rows: Sequence[np.ndarray]


def render(template: str, exported: dict[str, Any], modules: dict[str, Any]) -> str:
    """Render the page.

    Args:
        template: The text of the Jinja template.
        exported: The cells of the tables with their images, and the files behind them.
        modules: The modules of the code, as `module_texts` returns them.
    Returns:
        The page as HTML.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.from_string(template).render(**exported, modules=modules)


def module_texts(paths: Sequence[Path], files: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Read the modules that made the files, in their present state.

    Args:
        paths: The modules of the project.
        files: The files behind the tables, with their records.
    Returns:
        For each module that made one of the files its path, its text, and its hash in a fingerprint.
    """
    made = {module for file in files.values() for module in file.get("record", {}).get("code_modules", {})}
    found = {}
    for path in paths:
        place = path.resolve().relative_to(WORKFLOW.resolve())
        module = ".".join(place.parent.parts if place.name == "__init__.py" else place.with_suffix("").parts)
        if module in made:
            text = path.read_text(encoding="utf-8")
            digest = hashlib.sha256(normalised(text).encode()).hexdigest()
            found[module] = {"path": f"workflow/{place.as_posix()}", "text": text, "sha256": digest}
    return found


def picture(run: Run, cell: dict[str, Any], data: Mapping[str, Path], splits: Path) -> dict[str, Any] | None:
    """Draw the images of a cell.

    Args:
        run: The finished run.
        cell: The cell with its arrays.
        data: The artifact that has the images of a set, by the set's name.
        splits: The artifact of the splits.
    Returns:
        The PNG in base 64, its caption, its alternative text, and a note for each image. If there are no such
        images, only the caption. None for a cell that is not about images.
    """
    if not KINDS[cell["unit"]].of_images:
        return None
    source = cell["sources"][0]
    *_, last = source["array"].split("/")
    which = "whose distortion counts" if source["array"] == "distortion" else f"that {last} misclassifies"
    found = examples(run, source, data, splits)
    count = len(found.labels)
    if not count:
        return {"caption": f"There are no images {which}."}
    caption = f"{count} of the {found.of} {found.part} images {which}"
    if len(found.rows) > 1:
        caption += ": above the original, below what was made of it"
    alt = f"{caption}. Their classes are {', '.join(map(str, found.labels))}."
    notes = [f"{label} → {target}" for label, target in zip(found.labels, found.targets, strict=False)]
    caption += f". Beneath, the true class{' → the target of the attack' if notes else ''}."
    return {
        "png": _png(found.rows),
        "alt": alt,
        "caption": caption,
        "notes": notes or list(map(str, found.labels)),
    }


def examples(run: Run, source: dict[str, Any], data: Mapping[str, Path], splits: Path) -> Examples:
    """Read the first images that an array marks.

    These are the images that are misclassified. For an array of distortions they are the images whose
    distortion counts.

    Args:
        run: The finished run.
        source: The array, with the files that it was made from.
        data: The artifact that has the images of a set, by the set's name.
        splits: The artifact of the splits.
    Returns:
        At most `SHOWN` images.
    """
    recorded = run.artifact(source["artifact"]).record["inputs"]
    distorted = recorded.get("distorted") or recorded.get("shards") or {}
    shards = [path for path in source["inputs"] if path in distorted]
    row = source["array"].split("/")[-2] if "/" in source["array"] else None
    with artifacts.read(run.folder / source["artifact"]) as file:
        places = _places(file, source["array"], row, splits)
    part = (
        run.artifact(shards[0]).record["settings"]["images"]
        if shards
        else ("test" if row == "test" else "train")
    )
    first = np.sort(places[:SHOWN])
    with artifacts.read(data[part]) as file:
        originals, labels = file[f"{part}/images"][first], file[f"{part}/labels"][first].tolist()
    images, targets = _distorted(run, shards, first)
    return Examples(len(places), part, labels, targets, [originals, images] if shards else [originals])


def _places(file: h5py.File, array: str, row: str | None, splits: Path) -> np.ndarray:
    """Return the places of the marked images in the image set."""
    if row is None:
        return file["index"][()][file["success"][()]]
    wrong = np.flatnonzero(file[array][()])
    if "index" in file:
        return file[f"index/{row}"][()][wrong]
    return wrong if row in ("train", "test") else image_sets.read_split(splits, row)[wrong]


def _distorted(run: Run, shards: Sequence[str], places: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Read the distorted images at sorted places from as few shards as possible, and their targets."""
    images, targets = [], []
    for path in shards:
        if len(images) == len(places):
            break
        with artifacts.read(run.folder / path) as file:
            here = np.flatnonzero(np.isin(file["index"][()], places))
            images.extend(file["images"][here])
            targets.extend(file["target"][here].tolist() if "target" in file else [])
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8), targets


def _png(rows: Sequence[np.ndarray]) -> str:
    step = -(-rows[0].shape[-1] // THUMBNAIL)
    coloured = [images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1) for images in rows]
    small = [
        np.pad(images[..., ::step, ::step], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=GAP)
        for images in coloured
    ]
    rgb = np.concatenate([np.concatenate(images, axis=2) for images in small], axis=1)
    rgb = np.ascontiguousarray(rgb.transpose(1, 2, 0))
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, rgb, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
