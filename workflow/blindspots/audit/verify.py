"""Checks of every link from a run's raw data to its numbers, by content.

They find the broken links, and the cells that depend on them.
"""

import contextlib
import importlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from blindspots.audit.plan import Job
from blindspots.audit.records import Run, changed_settings, code_changes
from blindspots.data import idx
from blindspots.steps import artifacts
from blindspots.steps.artifacts import ArtifactError


class BrokenLink(NamedTuple):
    """A broken link.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    path: str
    reason: str


def broken_links(run: Run, jobs: Sequence[Job]) -> Iterator[BrokenLink]:
    """Find the broken links of a run.

    Args:
        run: The finished run.
        jobs: The plan of its files.
    Yields:
        The broken links.
    """
    for job in jobs:
        missing = [path for path in job.outputs if not (run.folder / path).is_file()]
        for path in missing:
            yield BrokenLink(path, "is missing")
        if missing:
            continue
        if job.outputs[0].endswith(".h5"):
            yield from (BrokenLink(job.outputs[0], reason) for reason in _artifact(run, job))
        else:
            yield from _derived(run, job)


def _artifact(run: Run, job: Job) -> Iterator[str]:
    path = job.outputs[0]
    try:
        artifact = run.artifact(path)
    except ArtifactError:
        yield "is damaged: its bytes are not those that were sealed"
        return
    record = artifact.record
    if artifact.content != record["content_sha256"]:
        yield "has arrays or a record that are not those that it was written with"
    if record["program"] != job.program:
        yield f"was made by {record['program']}; the workflow says {job.program}"
    if other := changed_settings(record, job.settings):
        yield f"was made with other settings than the configuration says: {', '.join(other)}"
    yield from code_changes(record)
    for role, paths in job.inputs.items():
        recorded = record["inputs"].get(role, {})
        if set(recorded) != set(paths):
            yield f"was made from other files as its {role} than the workflow says"
        for name in paths:
            if name in recorded and recorded[name] != run.identity(name):
                yield f"was made from another {name} than is there"
    if job.program == "scripts.fetch_images":
        yield from _raw_data(run.folder / path, job.settings["files"])


def _raw_data(path: Path, files: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    with artifacts.read(path) as file:
        for role, expected in files.items():
            digest = idx.sha256(idx.serialise(file[role.replace("_", "/")][()]))
            if digest != expected["sha256"]:
                yield f"has {role} that are not the file {expected['name']} of the configuration"


def _derived(run: Run, job: Job) -> Iterator[BrokenLink]:
    """Check tables, pages and pictures. They carry no record, so they are made again and compared."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(run.folder):
        copies = [str(Path(scratch, str(number), Path(path).name)) for number, path in enumerate(job.outputs)]
        status, said = rerun_program(job, copies)
        for path, copy in zip(job.outputs, copies, strict=True):
            if status:
                yield BrokenLink(path, f"cannot be made again: {said}")
            elif Path(path).read_bytes() != Path(copy).read_bytes():
                yield BrokenLink(path, "is not what its inputs give: changed by hand, or made from others")


def rerun_program(job: Job, outputs: Sequence[str]) -> tuple[int, str]:
    """Run a job's program in this process, with other outputs.

    Args:
        job: The job.
        outputs: The output files.
    Returns:
        The exit status, and the last line of the standard error output.
    """
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = importlib.import_module(job.program).main(job.arguments(outputs))
    return status, (said.getvalue().strip().splitlines() or [""])[-1]


def invalidated_cells(run: Run, jobs: Sequence[Job], broken: set[str]) -> dict[str, list[str]]:
    """Find the cells of each table that depend on a broken file.

    Args:
        run: The finished run.
        jobs: The plan of its files.
        broken: The broken files.
    Returns:
        The cells by table, as `row × column`. A table whose own files are broken or missing has the entry
        `all`.
    """
    found: dict[str, list[str]] = {}
    for job in jobs:
        (cells_file,) = [path for path in job.outputs if path.endswith(".cells.csv")] or [None]
        if cells_file is None:
            continue
        table = cells_file.removeprefix(f"{run.results}/").removesuffix(".cells.csv")
        if broken & {*job.outputs, *job.inputs.get("paper", [])} or not (run.folder / cells_file).is_file():
            found[table] = ["all"]
            continue
        for cell in run.cells(table).itertuples():
            parts = zip(cell.artifact.split(";"), cell.array.split(";"), strict=True)
            if any(broken & run.chain(path, array).keys() for path, array in parts):
                found.setdefault(table, []).append(f"{cell.row} × {cell.column}")
    return found
