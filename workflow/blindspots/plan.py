"""What the checked-out workflow and a configuration say is to be made, and how: Snakemake's own plan, from a dry run."""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blindspots.fingerprint import WORKFLOW

_COMMAND = "exec python -m "  # how every rule of the workflow begins


class PlanError(Exception):
    """There is no plan; the message is what Snakemake said."""


class Job(NamedTuple):
    """One run of a program: paths relative to the folder of the run, inputs by their role and in their order."""

    program: str
    inputs: dict[str, list[str]]
    outputs: list[str]
    settings: dict[str, Any]

    def arguments(self, outputs: Sequence[str]) -> list[str]:
        """The program's arguments, but with other outputs."""
        inputs = [word for role, paths in self.inputs.items() for word in (f"--{role}", *paths)]
        return [*inputs, "--output", *outputs, "--settings", json.dumps(self.settings)]


def plan(targets: Sequence[str], folder: Path, config: Mapping[str, Any] | None = None) -> list[Job]:
    """Every job that makes the targets (or, without any, all that is made by default) from the raw data on.

    config: what the run's configuration is, if not that of config/config.yaml. Raises PlanError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW.parent / "Snakefile"), "--cores", "1"]
        command += ["--dry-run", "--forceall", "--printshellcmds", *targets]
        if config is not None:
            path = Path(scratch, "config.json")
            path.write_text(json.dumps(config))
            command += ["--configfile", str(path)]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise PlanError(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "snakemake has no plan")
    commands = [line.partition(_COMMAND)[2] for line in run.stdout.splitlines() if _COMMAND in line]
    return [_job(shlex.split(command)) for command in commands]


def _job(words: Sequence[str]) -> Job:
    """The job of a command line `PROGRAM --option values …`."""
    program, *rest = words
    options: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            values = options.setdefault(word.removeprefix("--"), [])
        else:
            values.append(word)
    settings = json.loads(options.pop("settings")[0])
    for unrecorded in ("log", "unrecorded"):
        options.pop(unrecorded, None)
    outputs = options.pop("output")
    return Job(program, options, outputs, settings)
