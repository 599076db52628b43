"""Where a number comes from: the records of a finished run's artifacts, from a table's cell to the raw data.

Everything is read from the artifacts themselves; nothing from the workflow engine's own books.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from blindspots.report import tables
from blindspots.report.kinds import KINDS
from blindspots.steps import artifacts
from blindspots.steps.artifacts import ArtifactError
from blindspots.steps.fingerprint import fingerprint


class CellError(Exception):
    """There is no such cell; the message says what there is."""


class Artifact:
    """One HDF5 artifact of a run in `folder`, by its path there. Raises ArtifactError if it is not whole."""

    def __init__(self, folder: Path, path: str):
        self.folder, self.path = folder, path
        with artifacts.read(folder / path) as file:
            self.record = {key: _decoded(value) for key, value in file.attrs.items()}

    @cached_property
    def content(self) -> str:
        """The hash that its arrays and its record have now; `record` has the one that they were written with."""
        with artifacts.read(self.folder / self.path) as file:
            return artifacts.content_hash(file)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of its values, by name."""
        found: dict[str, np.ndarray] = {}
        with artifacts.read(self.folder / self.path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        return {name: np.asarray(values) for name, values in found.items()}

    def inputs(self, array: str | None = None) -> list[str]:
        """The files that it was made from; with a array, those that this one was."""
        recorded = self.record["inputs"]
        if array and array.startswith("misclassified/"):
            _, row, column = array.split("/")
            networks = [path for path in recorded["networks"] if Path(path).stem == column]
            if "distorted" in recorded:
                files = iter(recorded["distorted"])
                shards = {
                    each["name"]: list(islice(files, each["shards"]))
                    for each in self.record["settings"]["rows"]
                }
                images = shards[row]
            else:
                images = [*recorded["data"], *(recorded["splits"] if row not in ("train", "test") else [])]
            return [*images, *networks]
        return [path for paths in recorded.values() for path in paths]


def code_changes(record: Mapping[str, Any]) -> Iterator[str]:
    """What of the code that made an artifact is other code now."""
    try:
        now = fingerprint(record["program"])
    except KeyError:
        yield f"was made by {record['program']}, which is no program of this workflow now"
        return
    if record["code"] == now.sha256:
        return
    then = record["code_modules"]
    changed = sorted(
        name for name in now.modules.keys() | then.keys() if now.modules.get(name) != then.get(name)
    )
    yield f"was made by other code: {', '.join(changed) or 'other pinned versions of its packages'}"


class ArrayRecord(NamedTuple):
    """A array that a cell is computed from."""

    artifact: str
    array: str
    meaning: str
    shape: list[int]
    sha256: str  # of its bytes


class Run:
    """A finished run in a folder, its artifacts read once.

    Attributes: `folder`, in which Snakemake ran, and `results`, the path of its results there: another one than `results`
    where the workflow was a module with a prefix.
    """

    def __init__(self, folder: Path, results: str = "results"):
        self.folder, self.results = folder, results
        self._read: dict[str, Artifact | ArtifactError] = {}

    def artifact(self, path: str) -> Artifact:
        if path not in self._read:
            try:
                self._read[path] = Artifact(self.folder, path)
            except ArtifactError as error:
                self._read[path] = error
        found = self._read[path]
        if isinstance(found, ArtifactError):
            raise found
        return found

    def identity(self, path: str) -> str | None:
        """What an input is known by now; None if it is missing or damaged."""
        try:
            if path.endswith(".h5"):
                return f"content:{self.artifact(path).record['content_sha256']}"
            return artifacts.identity(self.folder / path)
        except (ArtifactError, OSError):
            return None

    def cells_file(self, table: str) -> str:
        return f"{self.results}/{table}.cells.csv"

    def cells(self, table: str) -> pd.DataFrame:
        """The cells of a table, as its file has them. Raises CellError if there is no such table."""
        path = self.folder / self.cells_file(table)
        if not path.is_file():
            there = sorted(found.name.removesuffix(".cells.csv") for found in path.parent.glob("*.cells.csv"))
            raise CellError(f"there is no {path}; of the tables there are {', '.join(there) or 'none'}")
        return tables.read(path)

    def cell(self, table: str, row: str, column: str) -> dict[str, Any]:
        """One cell's line. Raises CellError."""
        cells = self.cells(table)
        found = cells[(cells["row"] == row) & (cells["column"] == column)]
        if len(found) != 1:
            rows, columns = (", ".join(cells[key].unique()) for key in ("row", "column"))
            raise CellError(
                f"{table} has no cell {row} × {column}; its rows are {rows}; its columns {columns}"
            )
        return _plain(found.iloc[0].to_dict())

    def origin(self, cell: dict[str, Any]) -> dict[str, Any]:
        """How a cell was computed: the formula, and its arrays with the files that each was made from."""
        sources = [
            source._asdict() | {"inputs": self.artifact(source.artifact).inputs(source.array)}
            for source in self.sources(cell)
        ]
        kind = KINDS[cell["unit"]]
        formula = kind.formula
        if len(sources) > 1 and not kind.two_sided:
            formula += f", and of the {len(sources)} replicates"
        return {"formula": formula, "sources": sources}

    def sources(self, cell: dict[str, Any]) -> Iterator[ArrayRecord]:
        """The arrays of a cell, one for each replicate."""
        for path, name in zip(cell["artifact"].split(";"), cell["array"].split(";"), strict=True):
            with artifacts.read(self.folder / path) as file:
                if name not in file:
                    raise CellError(f"{path} has no array {name}")
                array: h5py.Dataset = file[name]
                digest = hashlib.sha256(np.ascontiguousarray(array[()]).tobytes()).hexdigest()
                yield ArrayRecord(path, name, array.attrs["meaning"], list(array.shape), digest)

    def chain(self, path: str, array: str | None = None) -> dict[str, list[str]]:
        """Every file that an artifact, or one array of it, comes from -> what that file in turn was made from.

        A file that is no artifact, or cannot be read, was made from nothing that is known.
        """
        found: dict[str, list[str]] = {}

        def follow(path: str, array: str | None) -> None:
            if path in found:
                return
            try:
                found[path] = self.artifact(path).inputs(array) if path.endswith(".h5") else []
            except ArtifactError:
                found[path] = []
            for name in found[path]:
                follow(name, None)

        follow(path, array)
        return found


def changed_settings(record: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """The settings in which an artifact's record differs from those of the job that is to make it, without its code."""
    recorded, planned = record["settings"], {key: value for key, value in settings.items() if key != "code"}
    return sorted(key for key in planned.keys() | recorded if planned.get(key) != recorded.get(key))


def stated_value(cell: Mapping[str, Any]) -> float:
    """The value that a table gives for a cell; NaN where there was nothing to compute it from."""
    return math.nan if cell["value"] is None else cell["value"]


def same_value(one: float, other: float, rel_tol: float = 0.0, abs_tol: float = 0.0) -> bool:
    """Whether two values of a cell are the same, NaN and NaN included."""
    return math.isclose(one, other, rel_tol=rel_tol, abs_tol=abs_tol) or (
        math.isnan(one) and math.isnan(other)
    )


def export(run: Run, tables: Sequence[str]) -> dict[str, Any]:
    """All that is known of the tables' numbers, for programs: every cell with its origin, and every file behind them."""
    described, files = {}, {}
    for table in tables:
        cells = [_plain(line) for line in run.cells(table).to_dict("records")]
        described[table] = {
            **_words(run.folder / run.results / f"{table}.md"),
            "cells": [cell | run.origin(cell) for cell in cells],
        }
        for cell in described[table]["cells"]:
            for source in cell["sources"]:
                files |= run.chain(source["artifact"])
    return {
        "tables": described,
        "files": {path: _file(run, path, inputs) for path, inputs in sorted(files.items())},
    }


def _words(markdown: Path) -> dict[str, Any]:
    """A table's title and notes, as its page for people has them."""
    lines = markdown.read_text(encoding="utf-8").splitlines()
    return {
        "title": lines[0].removeprefix("# "),
        "notes": [line[2:] for line in lines if line.startswith("- ")],
    }


def _file(run: Run, path: str, inputs: list[str]) -> dict[str, Any]:
    if path.endswith(".h5"):
        return {"inputs": inputs, "record": run.artifact(path).record}
    return {"inputs": inputs, "identity": artifacts.identity(run.folder / path)}


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    return {key: None if pd.isna(value) else value for key, value in line.items()}


def _decoded(value: Any) -> Any:
    """An attribute as it was before it was written: what is neither a number nor text is there as JSON."""
    if isinstance(value, str) and value[:1] in ("{", "[", "t", "f", "n"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value.item() if isinstance(value, np.generic) else value
