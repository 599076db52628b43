"""Show where any number of a finished run comes from, and check that it still does.

    python -m blindspots.audit table4 M1 M2      one cell: its array, and the chain back to the raw data
    python -m blindspots.audit                   all files of the run; exit status 1 if a link is broken

Nothing that Snakemake has stored about the run is trusted. The plan for this configuration and this code says
which files there should be. Every hash is computed again.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from blindspots.audit.answer import answer, format_answer
from blindspots.audit.plan import Job, PlanError, UnknownTargetError, plan
from blindspots.audit.recompute import RecomputationError, format_recomputation, recompute
from blindspots.audit.records import CellError, Run
from blindspots.audit.verify import broken_links, invalidated_cells
from blindspots.config.merging import merged
from blindspots.steps.artifacts import ArtifactError

# The files that people request from a run. All their inputs are checked with them.
FINISHED = (
    *(f"{folder}*.{kind}" for folder in ("", "seeds*/", "ablations/*/") for kind in ("csv", "md", "html")),
    *("*.png", "figures/*.png", "provenance.json", "archive.zip"),
)
NOT_OURS = ("README.md", "report.html")  # The first belongs to the folder, the second to Snakemake.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None for those of the command line.
    Returns:
        The exit status. It is 0 if everything that was checked holds, and 1 if not. It is 2 if there is
        nothing to check, or the check is impossible.
    """
    parser = argparse.ArgumentParser(
        prog="python -m blindspots.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "cell", nargs="*", metavar="TABLE ROW COLUMN", help="one cell; without it, everything"
    )
    parser.add_argument(
        "--recompute", action="store_true", help="compute the cell again from its parents, and compare"
    )
    parser.add_argument(
        "--deep", action="store_true", help="all the way from the raw bytes (with --recompute)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--directory", type=Path, default=Path(), help="of the run (default: here)")
    parser.add_argument(
        "--results",
        default="results",
        help="their folder in the run's, for a module with a prefix (default: results)",
    )
    parser.add_argument(
        "--config",
        type=_configuration,
        action="append",
        help="the run's, as JSON or as a file (default: config/config.yaml); "
        "of several each changes those before",
    )
    options = parser.parse_args(argv)
    options.config = reduce(merged, options.config) if options.config else None
    if len(options.cell) not in (0, 3):
        parser.error("a cell is a table, a row and a column, for instance: table4 M1 M2")
    if (options.recompute and not options.cell) or (options.deep and not options.recompute):
        parser.error(
            "what is computed again is one cell: table4 M1 M2 --recompute, and all of its chain with --deep"
        )
    run = Run(options.directory.resolve(), os.path.normpath(options.results))
    try:
        if not options.cell:
            return _everything(run, options)
        return _recomputed(run, options) if options.recompute else _cell(run, options)
    except (CellError, PlanError, ArtifactError, RecomputationError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _configuration(text: str) -> dict[str, Any]:
    """Parse JSON, or a file with JSON or YAML, as the changes to config/config.yaml."""
    try:
        written = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        with contextlib.suppress(json.JSONDecodeError):
            return _sections(text, json.loads(written))  # YAML would read 1e-05 as text.
        return _sections(text, yaml.safe_load(written))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise argparse.ArgumentTypeError(
            f"{text} is neither JSON nor a readable file of it: {reason}"
        ) from None


def _sections(text: str, written: Any) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise argparse.ArgumentTypeError(
            f"{text} has no keys of a configuration: give such as {{attack: {{seed: 1}}}}"
        )
    return written


def _cell(run: Run, options: argparse.Namespace) -> int:
    found = answer(run, *options.cell)
    print(json.dumps(found, indent=2) if options.json else format_answer(found))
    return int(bool(found["broken"]) or any(link["broken"] for link in found["files"].values()))


def _recomputed(run: Run, options: argparse.Namespace) -> int:
    cell = run.cell(*options.cell)
    jobs = plan([run.cells_file(options.cell[0])], run.folder, options.config, run.results)
    found = recompute(
        run, jobs, *options.cell, deep=options.deep, report=lambda line: print(line, file=sys.stderr)
    )
    if options.json:
        print(
            json.dumps(
                {
                    "cell": cell,
                    **found._asdict(),
                    "files": [file._asdict() for file in found.files],
                    "holds": found.holds,
                },
                indent=2,
            )
        )
    else:
        print("\n".join(format_recomputation(found)))
    return int(not found.holds)


def _everything(run: Run, options: argparse.Namespace) -> int:
    results = run.folder / run.results
    there = {path for pattern in FINISHED for path in results.glob(pattern)} - {
        results / name for name in NOT_OURS
    }
    made = sorted(path.relative_to(run.folder).as_posix() for path in there)
    if not made:
        print(f"Error: there is no finished table in {results}", file=sys.stderr)
        return 2
    jobs, unknown = _planned(made, run, options.config)
    found = list(broken_links(run, jobs))
    cells = invalidated_cells(run, jobs, {broken.path for broken in found})
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
    """Return the plan of the files, and those without a plan, such as your own picture or an old table."""
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
        # A reader that stops early, such as `head`, ends the program without an error message.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # Some terminals cannot print λ.
    raise SystemExit(main())
