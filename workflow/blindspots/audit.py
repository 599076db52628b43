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
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blindspots import artifacts, idx
from blindspots.artifacts import ArtifactError
from blindspots.fingerprint import fingerprint
from blindspots.plan import Job, PlanError, plan
from blindspots.provenance import CellError, Run


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
    settings = {key: value for key, value in job.settings.items() if key != "code"}
    if other := sorted(
        key for key in settings.keys() | record["settings"] if settings.get(key) != record["settings"].get(key)
    ):
        yield f"was made with other settings than the configuration says: {', '.join(other)}"
    yield from code_changes(record)
    for role, paths in job.inputs.items():
        recorded = record["inputs"].get(role, {})
        if set(recorded) != set(paths):
            yield f"was made from other files as its {role} than the workflow says"
        for name in paths:
            if name in recorded and recorded[name] != _identity(run, name):
                yield f"was made from another {name} than is there"
    if job.program == "scripts.fetch":
        yield from _raw_data(run.folder / path, job.settings["files"])


def code_changes(record: Mapping[str, Any]) -> Iterator[str]:
    """What of the code that made an artifact is other code now."""
    now = fingerprint(record["program"])
    if record["code"] == now.sha256:
        return
    then = record["code_modules"]
    changed = sorted(name for name in now.modules.keys() | then.keys() if now.modules.get(name) != then.get(name))
    yield f"was made by other code: {', '.join(changed) or 'other pinned versions of its packages'}"


def _identity(run: Run, path: str) -> str | None:
    """What an input is known by; None if it is missing or damaged, which is its own break."""
    try:
        if path.endswith(".h5"):
            return f"content:{run.artifact(path).record['content_sha256']}"
        return artifacts.identity(run.folder / path)
    except (ArtifactError, OSError):
        return None


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
    arguments = [word for role, paths in job.inputs.items() for word in (f"--{role}", *paths)]
    arguments += ["--output", *outputs, "--settings", json.dumps(job.settings)]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = importlib.import_module(job.program).main(arguments)
    return status, (said.getvalue().strip().splitlines() or [""])[-1]


def invalidated(run: Run, jobs: Sequence[Job], broken: set[str]) -> dict[str, list[str]]:
    """The cells of each table that rest on a broken file."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        (cells_file,) = [path for path in job.outputs if path.endswith(".cells.csv")] or [None]
        if cells_file is None:
            continue
        table = cells_file.removeprefix("results/").removesuffix(".cells.csv")
        if broken & {*job.outputs, *job.inputs.get("paper", [])} or not (run.folder / cells_file).is_file():
            found[table] = ["all"]
            continue
        for cell in run.cells(table).itertuples():
            parts = zip(cell.artifact.split(";"), cell.dataset.split(";"), strict=True)
            if any(broken & run.chain(path, dataset).keys() for path, dataset in parts):
                found.setdefault(table, []).append(f"{cell.row} × {cell.column}")
    return found


def answer(run: Run, table: str, row: str, column: str) -> dict[str, Any]:
    """Where one cell comes from: its line, its datasets, and for every file of the chain its record and what is broken."""
    cell = run.cell(table, row, column)
    origin = run.origin(cell)
    links: dict[str, Any] = {}
    for source in origin["sources"]:
        for path, inputs in run.chain(source["artifact"], source["dataset"]).items():
            links[path] = {"inputs": inputs, **_described(run, path)}
    return {"cell": cell, **origin, "files": links}


def _described(run: Run, path: str) -> dict[str, Any]:
    if not path.endswith(".h5"):
        return {"identity": _identity(run, path), "broken": []}
    try:
        artifact = run.artifact(path)
    except ArtifactError as error:
        return {"record": None, "broken": [str(error)]}
    record = artifact.record
    problems = list(code_changes(record))
    if artifact.content != record["content_sha256"]:
        problems.append("has datasets or a record that are not those that it was written with")
    recorded = {name: identity for paths in record["inputs"].values() for name, identity in paths.items()}
    problems += [
        f"was made from another {name} than is there" for name in recorded if recorded[name] != _identity(run, name)
    ]
    return {"record": record, "broken": problems}


def told(found: Mapping[str, Any]) -> str:
    """An answer as a tree, for people."""
    cell = found["cell"]
    unit = " %" if cell["unit"] == "%" else ""
    lines = [
        f"{cell['table']}, {cell['row']} × {cell['column']}: {cell['value']:.6g}{unit} (n = {cell['n']}, 95 % interval "
        f"{cell['ci_low']:.4g} to {cell['ci_high']:.4g}; the paper: {cell['paper'] or '–'}, {cell['verdict']})",
        f"  = {found['formula']} of",
    ]
    shown: set[str] = set()

    def follow(path: str, depth: int) -> None:
        link, indent = found["files"][path], "  " * depth
        if path in shown:
            lines.append(f"{indent}└ {path} (above)")
            return
        shown.add(path)
        lines.append(f"{indent}└ {path}")
        lines.extend(f"{indent}    {line}" for line in _about(link))
        for name in link["inputs"]:
            follow(name, depth + 1)

    for source in found["sources"]:
        lines.append(f"  {source['dataset']}: {source['meaning']}")
        lines.append(f"    shape {source['shape']}, SHA-256 {source['sha256']}")
        follow(source["artifact"], 1)
    return "\n".join(lines)


def _about(link: Mapping[str, Any]) -> Iterator[str]:
    record = link.get("record")
    if record:
        settings = json.dumps({key: value for key, value in record["settings"].items() if key != "rows"})
        yield f"{record['program']} {settings}"
        dirty = " and uncommitted changes" if record["git_dirty"] else ""
        yield f"content {record['content_sha256']}, commit {record['git_commit']}{dirty}"
        yield f"code {record['code']} of {', '.join(record['code_modules'])}"
        where = f"{record['host']} ({record['device']}, threads {record['threads']})"
        yield f"{record['started']}, {record['wall_seconds']} s on {where}"
        yield ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    elif link.get("identity"):
        yield link["identity"]
    for reason in link["broken"]:
        yield f"BROKEN: {reason}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m blindspots.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cell", nargs="*", metavar="TABLE ROW COLUMN", help="one cell; without it, everything")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--directory", type=Path, default=Path(), help="of the run (default: here)")
    parser.add_argument("--config", type=json.loads, help="the run's configuration as JSON (default: config/config.yaml)")
    options = parser.parse_args(argv)
    if len(options.cell) not in (0, 3):
        parser.error("a cell is a table, a row and a column, for instance: table4 M1 M2")
    run = Run(options.directory.resolve())
    try:
        return _cell(run, options) if options.cell else _everything(run, options)
    except (CellError, PlanError, ArtifactError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _cell(run: Run, options: argparse.Namespace) -> int:
    found = answer(run, *options.cell)
    print(json.dumps(found, indent=2) if options.json else told(found))
    return int(any(link["broken"] for link in found["files"].values()))


def _everything(run: Run, options: argparse.Namespace) -> int:
    made = sorted(path.relative_to(run.folder / "results").as_posix() for path in run.folder.glob("results/**/*.cells.csv"))
    if not made:
        print(f"Error: there is no finished table in {run.folder / 'results'}", file=sys.stderr)
        return 2
    jobs = plan([f"results/{path}" for path in made], run.folder, options.config)
    found = list(breaks(run, jobs))
    cells = invalidated(run, jobs, {broken.path for broken in found})
    if options.json:
        print(
            json.dumps(
                {"files": len(jobs), "broken": [broken._asdict() for broken in found], "invalidated": cells}, indent=2
            )
        )
        return int(bool(found))
    for broken in found:
        print(f"BROKEN {broken.path} {broken.reason}")
    for table, names in cells.items():
        print(f"INVALID {table}: {', '.join(names)}")
    files = sum(len(job.outputs) for job in jobs)
    print(f"{files} files of {len(made)} tables checked: " + (f"{len(found)} broken links" if found else "every link holds"))
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
