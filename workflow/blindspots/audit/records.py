"""The records of a finished run's artifacts, from a table's cell back to the raw data.

Everything is read from the artifacts themselves. Nothing is read from Snakemake's own records.
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
    """There is no such cell; the message names those that there are."""


class Artifact:
    """An HDF5 artifact of a run.

    Attributes:
        folder: The run's folder.
        path: The artifact's path in that folder.
        record: The provenance record, by attribute.
    """

    def __init__(self, folder: Path, path: str):
        """Read the record.

        Args:
            folder: The run's folder.
            path: The artifact's path in that folder.
        Raises:
            ArtifactError: If the artifact cannot be read or is damaged.
        """
        self.folder, self.path = folder, path
        with artifacts.read(folder / path) as file:
            self.record = {key: _decoded(value) for key, value in file.attrs.items()}

    @cached_property
    def content(self) -> str:
        """The present hash of its arrays and its record. `record` has the hash at writing."""
        with artifacts.read(self.folder / self.path) as file:
            return artifacts.content_hash(file)

    def arrays(self) -> dict[str, np.ndarray]:
        """Read all arrays.

        Returns:
            The arrays by name.
        """
        found: dict[str, np.ndarray] = {}
        with artifacts.read(self.folder / self.path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        return {name: np.asarray(values) for name, values in found.items()}

    def inputs(self, array: str | None = None) -> list[str]:
        """Return the files that the artifact was made from.

        Args:
            array: The name of an array; only the files that this array was made from are returned. None for
                all files.
        Returns:
            The paths.
        """
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
    """Compare the code that made an artifact with the present code.

    Args:
        record: The artifact's record.
    Yields:
        At most one sentence about what has changed.
    """
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
    """An array that a cell is computed from.

    Attributes:
        artifact: The path of its artifact.
        array: Its name in the artifact.
        meaning: Its meaning, from the artifact.
        shape: Its shape.
        sha256: The SHA-256 of its bytes.
    """

    artifact: str
    array: str
    meaning: str
    shape: list[int]
    sha256: str


class Run:
    """A finished run. Each artifact is read once.

    Attributes:
        folder: The folder in which Snakemake ran.
        results: The path of the results in it. It is not `results` if the workflow was a module with a
            prefix.
    """

    def __init__(self, folder: Path, results: str = "results"):
        """Describe a run; nothing is read yet.

        Args:
            folder: The folder in which Snakemake ran.
            results: The path of the results in it.
        """
        self.folder, self.results = folder, results
        self._read: dict[str, Artifact | ArtifactError] = {}

    def artifact(self, path: str) -> Artifact:
        """Return an artifact.

        Args:
            path: Its path in the run's folder.
        Returns:
            The artifact.
        Raises:
            ArtifactError: If it cannot be read or is damaged.
        """
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
        """Return the present identity of an input file.

        Args:
            path: Its path in the run's folder.
        Returns:
            The identity, or None if the file is missing or damaged.
        """
        try:
            if path.endswith(".h5"):
                return f"content:{self.artifact(path).record['content_sha256']}"
            return artifacts.identity(self.folder / path)
        except (ArtifactError, OSError):
            return None

    def cells_file(self, table: str) -> str:
        """Return the path of a table's file with one line per cell, in the run's folder.

        Args:
            table: The table.
        Returns:
            The path.
        """
        return f"{self.results}/{table}.cells.csv"

    def cells(self, table: str) -> pd.DataFrame:
        """Read the cells of a table.

        Args:
            table: The table.
        Returns:
            One line per cell.
        Raises:
            CellError: If there is no such table.
        """
        path = self.folder / self.cells_file(table)
        if not path.is_file():
            there = sorted(found.name.removesuffix(".cells.csv") for found in path.parent.glob("*.cells.csv"))
            raise CellError(f"there is no {path}; of the tables there are {', '.join(there) or 'none'}")
        return tables.read(path)

    def cell(self, table: str, row: str, column: str) -> dict[str, Any]:
        """Read one cell.

        Args:
            table: The table.
            row: The cell's row.
            column: The cell's column.
        Returns:
            Its line, by column of the file. Missing values are None.
        Raises:
            CellError: If there is no such cell.
        """
        cells = self.cells(table)
        found = cells[(cells["row"] == row) & (cells["column"] == column)]
        if len(found) != 1:
            rows, columns = (", ".join(cells[key].unique()) for key in ("row", "column"))
            raise CellError(
                f"{table} has no cell {row} × {column}; its rows are {rows}; its columns {columns}"
            )
        return _plain(found.iloc[0].to_dict())

    def origin(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Return how a cell was computed.

        Args:
            cell: The cell's line.
        Returns:
            The formula, and the arrays with the files that each was made from.
        Raises:
            CellError: If an array is missing.
            ArtifactError: If an artifact cannot be read or is damaged.
        """
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
        """Read the arrays of a cell.

        Args:
            cell: The cell's line.
        Yields:
            The arrays, one per replicate.
        Raises:
            CellError: If an array is missing.
            ArtifactError: If an artifact cannot be read or is damaged.
        """
        for path, name in zip(cell["artifact"].split(";"), cell["array"].split(";"), strict=True):
            with artifacts.read(self.folder / path) as file:
                if name not in file:
                    raise CellError(f"{path} has no array {name}")
                array: h5py.Dataset = file[name]
                digest = hashlib.sha256(np.ascontiguousarray(array[()]).tobytes()).hexdigest()
                yield ArrayRecord(path, name, array.attrs["meaning"], list(array.shape), digest)

    def chain(self, path: str, array: str | None = None) -> dict[str, list[str]]:
        """Follow an artifact, or one array of it, back to the raw data.

        Args:
            path: The artifact's path in the run's folder.
            array: The name of the array; None for the whole artifact.
        Returns:
            The inputs of every file of the chain, by the file. A file that is not an artifact, or cannot be
            read, has no known inputs.
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
    """Return the settings in which an artifact's record differs from its job, without the code's hash.

    Args:
        record: The artifact's record.
        settings: The settings of the job that makes it.
    Returns:
        The names of the settings, sorted.
    """
    recorded, planned = record["settings"], {key: value for key, value in settings.items() if key != "code"}
    return sorted(key for key in planned.keys() | recorded if planned.get(key) != recorded.get(key))


def stated_value(cell: Mapping[str, Any]) -> float:
    """Return the value that a table has for a cell.

    Args:
        cell: The cell's line.
    Returns:
        The value, or NaN if there was nothing to compute it from.
    """
    return math.nan if cell["value"] is None else cell["value"]


def same_value(one: float, other: float, rel_tol: float = 0.0, abs_tol: float = 0.0) -> bool:
    """Compare two values of a cell. Two NaN are equal.

    Args:
        one: The first value.
        other: The second value.
        rel_tol: The relative tolerance, as in `math.isclose`.
        abs_tol: The absolute tolerance.
    Returns:
        Whether they are the same.
    """
    return math.isclose(one, other, rel_tol=rel_tol, abs_tol=abs_tol) or (
        math.isnan(one) and math.isnan(other)
    )


def export(run: Run, tables: Sequence[str]) -> dict[str, Any]:
    """Collect all that is known about the tables' numbers, for programs.

    Args:
        run: The finished run.
        tables: The tables.
    Returns:
        Every cell with its origin, and every file behind the cells.
    Raises:
        CellError: If a table or an array is missing.
        ArtifactError: If an artifact cannot be read or is damaged.
    """
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
    """Read a table's title and notes from its page for people."""
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
    """Decode an attribute that is stored as JSON, which is anything other than a number or text."""
    if isinstance(value, str) and value[:1] in ("{", "[", "t", "f", "n"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value.item() if isinstance(value, np.generic) else value
