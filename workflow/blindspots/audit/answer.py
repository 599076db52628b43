"""The answer to where a cell comes from: its arrays, and the chain from there to the raw data."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blindspots.audit.records import Run, code_changes, same_value, stated_value
from blindspots.report.kinds import KINDS
from blindspots.report.tables import CellArray
from blindspots.steps.artifacts import ArtifactError


def answer(run: Run, table: str, row: str, column: str) -> dict[str, Any]:
    """Find where one cell comes from.

    Args:
        run: The finished run.
        table: The table.
        row: The cell's row.
        column: The cell's column.
    Returns:
        The line of the cell, its formula and its arrays. For every file of the chain it has the record and
        what is broken.
    Raises:
        CellError: If there is no such cell, or one of its arrays is missing.
        ArtifactError: If an artifact of its arrays cannot be read or is damaged.
    """
    cell = run.cell(table, row, column)
    origin = run.origin(cell)
    links: dict[str, Any] = {}
    for source in origin["sources"]:
        for path, inputs in run.chain(source["artifact"], source["array"]).items():
            link = links.setdefault(path, {"inputs": [], **_described(run, path)})
            # Another array of the cell may lie in the same file.
            link["inputs"] += [name for name in inputs if name not in link["inputs"]]
    return {
        "cell": cell,
        "broken": list(_contradicted(run, cell, origin["sources"])),
        **origin,
        "files": links,
    }


def _contradicted(run: Run, cell: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Recompute the cell from its arrays, and report a difference, as after an edit of the table."""
    arrays = [CellArray(run.folder / of["artifact"], of["array"]).values() for of in sources]
    given = KINDS[cell["unit"]].of(arrays)
    if not same_value(given, stated_value(cell), rel_tol=1e-6):
        yield f"is {_number(stated_value(cell))}, but its array gives {_number(given)}"


def _number(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:.6g}"


def _described(run: Run, path: str) -> dict[str, Any]:
    if not path.endswith(".h5"):
        return {"identity": run.identity(path), "broken": []}
    try:
        artifact = run.artifact(path)
    except ArtifactError as error:
        return {"record": None, "broken": [str(error)]}
    record = artifact.record
    problems = list(code_changes(record))
    if artifact.content != record["content_sha256"]:
        problems.append("has arrays or a record that are not those that it was written with")
    recorded = {name: identity for paths in record["inputs"].values() for name, identity in paths.items()}
    problems += [
        f"was made from another {name} than is there"
        for name in recorded
        if recorded[name] != run.identity(name)
    ]
    return {"record": record, "broken": problems}


def format_answer(found: Mapping[str, Any]) -> str:
    """Format an answer as a tree, for people.

    Args:
        found: As `answer` returns it.
    Returns:
        The text, in several lines.
    """
    cell = found["cell"]
    interval = (
        "" if cell["ci_low"] is None else f", 95 % interval {cell['ci_low']:.4g} to {cell['ci_high']:.4g}"
    )
    suffix = KINDS[cell["unit"]].suffix
    lines = [
        f"{cell['table']}, {cell['row']} × {cell['column']}: {_number(stated_value(cell))}{suffix} "
        f"(n = {cell['n']}{interval}; the paper: {cell['paper'] or '–'}, {cell['verdict']})",
        *(f"  BROKEN: {reason}" for reason in found["broken"]),
        f"  = {found['formula']}, of",
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
        lines.append(f"  {source['array']}: {source['meaning']}")
        lines.append(f"    shape {source['shape']}, SHA-256 {source['sha256']}")
        follow(source["artifact"], 1)
    lines.append(
        "(The value was held against its arrays; the audit of everything does so with the rest of the line.)"
    )
    return "\n".join(lines)


def _about(link: Mapping[str, Any]) -> Iterator[str]:
    record = link.get("record")
    if record:
        settings = json.dumps({key: value for key, value in record["settings"].items() if key != "rows"})
        yield f"{record['program']} {settings}"
        dirty = " and uncommitted changes" if record["git_dirty"] else ""
        yield f"content {record['content_sha256']}, commit {record['git_commit']}{dirty}"
        yield f"code {record['code']} of {', '.join(record['code_modules'])}"
        where = f"{record['host']} ({record['cpu']}, {record['device']}, threads {record['threads']})"
        yield f"{record['started']}, {record['wall_seconds']} s on {where}"
        yield ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    elif link.get("identity"):
        yield link["identity"]
    for reason in link["broken"]:
        yield f"BROKEN: {reason}"
