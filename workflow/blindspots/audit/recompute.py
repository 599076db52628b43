"""Recomputation of a cell, from its inputs or from the raw bytes, to prove its value.

The programs run in a temporary folder. It has the run's own files, except for those that are made again. On
the machine that made them the results must be the same bytes. With another processor, device or package, the
arithmetic rounds differently. Then the cell may differ by a tolerance.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blindspots.audit.plan import Job
from blindspots.audit.records import Artifact, Run, changed_settings, same_value, stated_value
from blindspots.data import idx
from blindspots.report.kinds import KINDS
from blindspots.steps import artifacts
from blindspots.steps.fingerprint import WORKFLOW

ENVIRONMENT = ("cpu", "device", "packages")  # Another one of these may round differently.


class RecomputationError(Exception):
    """A recomputation is impossible or failed; the message says why."""


class Tolerance(NamedTuple):
    """The largest allowed difference of a cell that was recomputed with other arithmetic.

    Attributes:
        rate: The tolerance of a rate, in percentage points. It is at least one image.
        distortion: The tolerance of a distortion, as a fraction of it.
        reason: Why the results differ.
    """

    rate: float
    distortion: float
    reason: str


# These were measured on Tables 3 and 4, recomputed with AVX2 after a run with AVX-512. One level changes no
# rate, and changes distortions by 1e-6. From the raw bytes, the changes are up to 1.0 points and 0.6 %.
ONE_LEVEL = Tolerance(
    rate=0.1,
    distortion=1e-4,
    reason="the order of float32 additions moves logits by some 1e-6, which decides only for images that "
    "near to a boundary, and ends few attacks elsewhere",
)
DEEP = Tolerance(
    rate=3.0,
    distortion=0.02,
    reason="training multiplies the rounding of its first iterations, so that it ends at other weights, "
    "as it would from another seed",
)


class Remade(NamedTuple):
    """A file that was made again.

    Attributes:
        path: The file.
        differences: What differs between it and the run's file. Empty if they have the same bits.
        environment: How the processor, device and packages differ from those in the record.
    """

    path: str
    differences: list[str]
    environment: list[str]


class Recomputation(NamedTuple):
    """The result of a recomputation.

    Attributes:
        value: The value in the table.
        again: The value that was computed again.
        files: The files that were made again.
        tolerance: The largest allowed difference, in the cell's unit. It is 0 if the environment is the same,
            since then the same bits are required.
        reason: Why the values may differ.
    """

    value: float
    again: float
    files: list[Remade]
    tolerance: float
    reason: str

    @property
    def holds(self) -> bool:
        """Whether the value is confirmed."""
        if self.tolerance:
            return same_value(self.again, self.value, abs_tol=self.tolerance)
        return same_value(self.again, self.value) and not any(file.differences for file in self.files)


def recompute(
    run: Run,
    jobs: Sequence[Job],
    table: str,
    row: str,
    column: str,
    *,
    deep: bool,
    report: Callable[[str], None],
) -> Recomputation:
    """Compute a cell of a run again.

    Args:
        run: The finished run.
        jobs: The plan, with the job that makes the cell's table.
        table: The table.
        row: The cell's row.
        column: The cell's column.
        deep: Whether the whole chain from the raw data is computed again, instead of one level.
        report: Called with a line of text for each job.
    Returns:
        The result.
    Raises:
        CellError: If there is no such cell.
        RecomputationError: If the run has other settings than the plan, if the workflow does not make one of
            the artifacts, or if a program fails.
        ArtifactError: If an artifact cannot be read or is damaged.
    """
    cell = run.cell(table, row, column)
    chosen = _chosen(run, jobs, cell, deep)
    for job in chosen:
        if other := changed_settings(run.artifact(job.outputs[0]).record, job.settings):
            raise RecomputationError(
                f"{job.outputs[0]} was made with other settings than the configuration says "
                f"({', '.join(other)}): give the run's own with --config"
            )
    (tabulation,) = [job for job in jobs if run.cells_file(table) in job.outputs]
    with tempfile.TemporaryDirectory() as scratch:
        # The folder is as deep as the run's, since relative paths may go up from it.
        folder = Path(scratch, *run.folder.parts[1:])
        again = Run(folder, run.results)
        _link({path for job in [*chosen, tabulation] for path in _read(job)}, chosen, run, again)
        remade = []
        for number, job in enumerate(chosen, start=1):
            report(f"{number} of {len(chosen)}: {job.outputs[0]}")
            _run(job, again.folder, _sources(run, job, Path(scratch, "raw")))
            remade += [_compared(run.artifact(path), again.artifact(path)) for path in job.outputs]
        _run(tabulation, again.folder, {})
        value = stated_value(again.cell(table, row, column))
    tolerance = DEEP if deep else ONE_LEVEL
    if not any(file.environment for file in remade):
        return Recomputation(stated_value(cell), value, remade, 0, "")
    return Recomputation(stated_value(cell), value, remade, allowed(cell, tolerance), tolerance.reason)


def allowed(cell: Mapping[str, Any], tolerance: Tolerance) -> float:
    """Return the largest allowed difference of a cell.

    Both rates of a difference may change, in opposite directions.

    Args:
        cell: The cell.
        tolerance: The tolerance.
    Returns:
        The difference, in the cell's unit.
    """
    kind = KINDS[cell["unit"]]
    if kind.rates == 1:
        return max(tolerance.rate, 100 / cell["n"])
    return kind.rates * tolerance.rate if kind.rates else tolerance.distortion * stated_value(cell)


def _chosen(run: Run, jobs: Sequence[Job], cell: Mapping[str, Any], deep: bool) -> list[Job]:
    """Return the jobs that make the cell's artifacts, in order; if `deep`, with all jobs before them."""
    maker = {path: job for job in jobs for path in job.outputs}
    graph: dict[str, list[str]] = {}
    for path, array in zip(cell["artifact"].split(";"), cell["array"].split(";"), strict=True):
        if path not in maker:
            raise RecomputationError(
                f"the workflow does not make {path}, which {cell['table']} says the cell is from"
            )
        chain = run.chain(path, array)
        if not deep:
            # This program only copies, so that its inputs are the level that is computed.
            copied = chain[path] if maker[path].program == "scripts.gather_shards" else []
            chain = {name: chain[name] for name in (path, *copied)}
        graph |= {name: inputs for name, inputs in chain.items() if name in maker}
    order = [path for path in TopologicalSorter(graph).static_order() if path in graph]
    return [maker[path] for path in order]


def _read(job: Job) -> Iterator[str]:
    """Yield the files that a job reads, and the folder of your own pictures."""
    for paths in job.inputs.values():
        yield from paths
    if job.program == "scripts.fetch_pictures" and job.settings["folder"]:
        yield job.settings["folder"]


def _link(inputs: set[str], chosen: Sequence[Job], run: Run, again: Run) -> None:
    """Link the files that are not made again to the places where they are read."""
    for path in inputs - {path for job in chosen for path in job.outputs}:
        place = Path(os.path.normpath(again.folder / path))
        if not place.exists():  # An absolute path exists already.
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(Path(os.path.normpath(run.folder / path)))


def _sources(run: Run, job: Job, folder: Path) -> dict[str, Any]:
    """Return the sources of a program's files.

    The program that fetches the data gets the raw files as the run has them. It checks their hashes. So no
    network is needed.
    """
    if job.program != "scripts.fetch_images":
        return job.unrecorded
    folder.mkdir()
    with artifacts.read(run.folder / job.outputs[0]) as file:
        for role, wanted in job.settings["files"].items():
            (folder / wanted["name"]).write_bytes(idx.serialise(file[role.replace("_", "/")][()]))
    return {"sources": [{"kind": "folder", "path": str(folder)}]}


def _run(job: Job, folder: Path, unrecorded: Mapping[str, Any]) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        job.program,
        *job.arguments(job.outputs),
        "--unrecorded",
        json.dumps(unrecorded),
    ]
    environment = {**os.environ, "PYTHONPATH": str(WORKFLOW)}
    finished = subprocess.run(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    if finished.returncode:
        said = (finished.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RecomputationError(f"{job.program} failed to make {job.outputs[0]}; it said: {said}")


def _compared(then: Artifact, now: Artifact) -> Remade:
    same = then.content == now.content
    return Remade(
        then.path, [] if same else list(_differences(then, now)), list(_environment(then.record, now.record))
    )


def _differences(then: Artifact, now: Artifact) -> Iterator[str]:
    """Yield the differences by array. If no array differs, the difference is in the record."""
    differ = False
    old, new = then.arrays(), now.arrays()
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None or after is None or before.shape != after.shape:
            yield f"{name} has another shape"
        elif not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            unequal = np.abs(before.astype(float) - after.astype(float))
            yield (
                f"{name} by up to {np.nanmax(unequal):.2g}, "
                f"in {np.count_nonzero(unequal):d} of {unequal.size} values"
            )
        else:
            continue
        differ = True
    if not differ:
        yield "the record of what it was made from"


def _environment(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in ENVIRONMENT:
        before, after = then.get(key), now[key]
        if before != after:
            yield f"{key}: {before} then, {after} now"


def format_recomputation(found: Recomputation) -> Iterator[str]:
    """Format a recomputation as text, for people.

    Args:
        found: The result.
    Yields:
        The lines.
    """
    for file in found.files:
        yield f"{file.path}: {'; '.join(file.differences) or 'the same bits'}"
    for change in sorted({change for file in found.files for change in file.environment}):
        yield f"computed elsewhere: {change}"
    outcome = "HOLDS" if found.holds else "DOES NOT HOLD"
    yield f"{found.value:.10g}, computed again {found.again:.10g}: {outcome}"
    if found.tolerance:
        yield f"(elsewhere it may differ by {found.tolerance:.3g}, because {found.reason})"
    elif not found.holds:
        yield "(with the same processor, device and packages the same bits are due)"
