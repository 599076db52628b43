"""Ask any number of a finished run where it comes from, and check that it still does.

    python -m blindspots.audit table4 M1 M2      one cell: its dataset, and the chain from there to the raw data
    python -m blindspots.audit                   everything that the run made; exit status 1 if a link is broken

Nothing that Snakemake remembers of the run is trusted: what should be there is its plan for this configuration and this
code, and every hash is taken again.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from blindspots import artifacts, idx
from blindspots.answer import answer, told
from blindspots.artifacts import ArtifactError
from blindspots.config import merged
from blindspots.plan import Job, PlanError, UnknownTargetError, plan
from blindspots.provenance import CellError, Run, code_changes, other_settings
from blindspots.recompute import RecomputationError, compared, recompute

# What people ask a run for; all that it is made from is checked with it.
FINISHED = (
    *(f"{folder}*.{kind}" for folder in ("", "seeds*/", "ablations/*/") for kind in ("csv", "md", "html")),
    *("*.png", "figures/*.png", "provenance.json", "archive.zip"),
)
NOT_OURS = ("README.md", "report.html")  # the folder's own, and Snakemake's


class Break(NamedTuple):
    """A broken link: a file, and what is wrong with it."""

    path: str
    reason: str


def breaks(run: Run, jobs: Sequence[Job]) -> Iterator[Break]:
    """Every broken link of a run whose plan is `jobs`."""
    for job in jobs:
        missing = [path for path in job.outputs if not (run.folder / path).is_file()]
        for path in missing:
            yield Break(path, "is missing")
        if missing:
            continue
        if job.outputs[0].endswith(".h5"):
            yield from (Break(job.outputs[0], reason) for reason in _artifact(run, job))
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
        yield "has datasets or a record that are not those that it was written with"
    if record["program"] != job.program:
        yield f"was made by {record['program']}; the workflow says {job.program}"
    if other := other_settings(record, job.settings):
        yield f"was made with other settings than the configuration says: {', '.join(other)}"
    yield from code_changes(record)
    for role, paths in job.inputs.items():
        recorded = record["inputs"].get(role, {})
        if set(recorded) != set(paths):
            yield f"was made from other files as its {role} than the workflow says"
        for name in paths:
            if name in recorded and recorded[name] != run.identity(name):
                yield f"was made from another {name} than is there"
    if job.program == "scripts.fetch":
        yield from _raw_data(run.folder / path, job.settings["files"])


def _raw_data(path: Path, files: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    with artifacts.read(path) as file:
        for role, expected in files.items():
            digest = idx.sha256(idx.serialise(file[role.replace("_", "/")][()]))
            if digest != expected["sha256"]:
                yield f"has {role} that are not the file {expected['name']} of the configuration"


def _derived(run: Run, job: Job) -> Iterator[Break]:
    """Tables, pages and pictures carry no record: they are made once more and compared."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(run.folder):
        copies = [str(Path(scratch, str(number), Path(path).name)) for number, path in enumerate(job.outputs)]
        status, said = rerun(job, copies)
        for path, copy in zip(job.outputs, copies, strict=True):
            if status:
                yield Break(path, f"cannot be made again: {said}")
            elif Path(path).read_bytes() != Path(copy).read_bytes():
                yield Break(path, "is not what its inputs give: changed by hand, or made from others")


def rerun(job: Job, outputs: Sequence[str]) -> tuple[int, str]:
    """Run a job's program in this process, with other outputs: its exit status, and the last line that it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = importlib.import_module(job.program).main(job.arguments(outputs))
    return status, (said.getvalue().strip().splitlines() or [""])[-1]


def invalidated(run: Run, jobs: Sequence[Job], broken: set[str]) -> dict[str, list[str]]:
    """The cells of each table that rest on a broken file."""
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
            parts = zip(cell.artifact.split(";"), cell.dataset.split(";"), strict=True)
            if any(broken & run.chain(path, dataset).keys() for path, dataset in parts):
                found.setdefault(table, []).append(f"{cell.row} × {cell.column}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m blindspots.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cell", nargs="*", metavar="TABLE ROW COLUMN", help="one cell; without it, everything")
    parser.add_argument("--recompute", action="store_true", help="compute the cell again from its parents, and compare")
    parser.add_argument("--deep", action="store_true", help="all the way from the raw bytes (with --recompute)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--directory", type=Path, default=Path(), help="of the run (default: here)")
    parser.add_argument(
        "--results", default="results", help="their folder in the run's, for a module with a prefix (default: results)"
    )
    parser.add_argument(
        "--config",
        type=_configuration,
        action="append",
        help="the run's, as JSON or as a file (default: config/config.yaml); of several each changes those before",
    )
    options = parser.parse_args(argv)
    options.config = reduce(merged, options.config) if options.config else None
    if len(options.cell) not in (0, 3):
        parser.error("a cell is a table, a row and a column, for instance: table4 M1 M2")
    if (options.recompute and not options.cell) or (options.deep and not options.recompute):
        parser.error("what is computed again is one cell: table4 M1 M2 --recompute, and all of its chain with --deep")
    run = Run(options.directory.resolve(), os.path.normpath(options.results))
    try:
        if not options.cell:
            return _everything(run, options)
        return _recomputed(run, options) if options.recompute else _cell(run, options)
    except (CellError, PlanError, ArtifactError, RecomputationError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _configuration(text: str) -> dict[str, Any]:
    """JSON, or the path of a file in it or in YAML, which then is all that differs from config/config.yaml."""
    try:
        written = text if text.lstrip().startswith("{") else Path(text).read_text()
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(written)  # of which YAML would take 1e-05 for a text
        return yaml.safe_load(written)
    except (OSError, yaml.YAMLError) as error:
        raise argparse.ArgumentTypeError(f"{text} is neither JSON nor a readable file of it: {error}") from None


def _cell(run: Run, options: argparse.Namespace) -> int:
    found = answer(run, *options.cell)
    print(json.dumps(found, indent=2) if options.json else told(found))
    return int(bool(found["broken"]) or any(link["broken"] for link in found["files"].values()))


def _recomputed(run: Run, options: argparse.Namespace) -> int:
    cell = run.cell(*options.cell)
    jobs = plan([run.cells_file(options.cell[0])], run.folder, options.config, run.results)
    found = recompute(run, jobs, *options.cell, deep=options.deep, report=lambda line: print(line, file=sys.stderr))
    if options.json:
        print(
            json.dumps(
                {"cell": cell, **found._asdict(), "files": [file._asdict() for file in found.files], "holds": found.holds},
                indent=2,
            )
        )
    else:
        print("\n".join(compared(found)))
    return int(not found.holds)


def _everything(run: Run, options: argparse.Namespace) -> int:
    results = run.folder / run.results
    there = {path for pattern in FINISHED for path in results.glob(pattern)} - {results / name for name in NOT_OURS}
    made = sorted(path.relative_to(run.folder).as_posix() for path in there)
    if not made:
        print(f"Error: there is no finished table in {results}", file=sys.stderr)
        return 2
    jobs, unknown = _planned(made, run, options.config)
    found = list(breaks(run, jobs))
    cells = invalidated(run, jobs, {broken.path for broken in found})
    files = sum(len(job.outputs) for job in jobs)
    if options.json:
        print(
            json.dumps(
                {
                    "files": files,
                    "broken": [broken._asdict() for broken in found],
                    "invalidated": cells,
                    "not_of_this_workflow": unknown,
                },
                indent=2,
            )
        )
        return int(bool(found))
    for broken in found:
        print(f"BROKEN {broken.path} {broken.reason}")
    for table, names in cells.items():
        print(f"INVALID {table}: {', '.join(names)}")
    for path in unknown:
        print(f"UNKNOWN {path} is made by no rule of this workflow, as it is configured: not checked")
    if not jobs:
        print(f"Error: nothing in {results} is made by this workflow, as it is configured", file=sys.stderr)
        return 2
    print(
        f"{files} files behind {len(made) - len(unknown)} results checked: "
        + (f"{len(found)} broken links" if found else "every link holds")
    )
    return int(bool(found))


def _planned(made: Sequence[str], run: Run, config: Mapping[str, Any] | None) -> tuple[list[Job], list[str]]:
    """The plan of what is made, and what of it is in no plan, as a picture of somebody's own or an old table."""
    unknown: list[str] = []
    while known := [path for path in made if path not in unknown]:
        try:
            return plan(known, run.folder, config, run.results), unknown
        except UnknownTargetError as error:
            if error.path not in known:
                raise
            unknown.append(error.path)
    return [], unknown


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads no further, as `head`, ends it without a word
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal that has no λ
    raise SystemExit(main())
