"""What the checked-out workflow and a configuration say is to be made, and how: Snakemake's own plan, from a dry run."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blindspots.steps.fingerprint import WORKFLOW
from blindspots.steps.shards import collapsed, expanded

_COMMAND = "exec python -P -m "  # how every rule of the workflow begins
_MODULE = """
module blindspots:
    snakefile: {snakefile!r}
    replace_prefix: {{"results/": {results!r} + "/"}}
    config: config
use rule * from blindspots
"""


_NO_RULE = re.compile(r"No rule to produce (\S+)")
_ERROR = re.compile(r"\w*(Error|Exception)\b|Error in")


class PlanError(Exception):
    """There is no plan; the message is what Snakemake said."""


class UnknownTargetError(PlanError):
    """The workflow, so configured, does not make a target; its path."""

    def __init__(self, path: str):
        super().__init__(f"the workflow, as it is configured, does not make {path}")
        self.path = path


class Job(NamedTuple):
    """One run of a program: paths relative to the folder of the run, inputs by their role and in their order."""

    program: str
    inputs: dict[str, list[str]]
    outputs: list[str]
    settings: dict[str, Any]
    unrecorded: dict[str, Any]  # settings that change nothing of what it makes: where files may come from

    def arguments(self, outputs: Sequence[str]) -> list[str]:
        """The program's arguments, but with other outputs."""
        inputs = [word for role, paths in self.inputs.items() for word in (f"--{role}", *collapsed(paths))]
        return [*inputs, "--output", *outputs, "--settings", json.dumps(self.settings)]


def plan(
    targets: Sequence[str], folder: Path, config: Mapping[str, Any] | None = None, results: str = "results"
) -> list[Job]:
    """Every job that makes the targets (or, without any, all that is made by default) from the raw data on.

    config: what the run's configuration is, if not that of config/config.yaml. results: the folder of its results, in its
    own. Raises PlanError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        snakefile = WORKFLOW.parent / "Snakefile"
        if results != "results":
            module = _MODULE.format(snakefile=str(snakefile), results=results)
            snakefile = Path(scratch, "Snakefile")
            snakefile.write_text(module)
        command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(snakefile)]
        command += ["--cores", "1", "--dry-run", "--forceall", "--printshellcmds", *targets]
        if config is not None:
            path = Path(scratch, "config.json")
            path.write_text(json.dumps(config))
            command += ["--configfile", str(path)]
        environment = {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if unknown := _NO_RULE.search(run.stdout):
        raise UnknownTargetError(unknown[1])
    if run.returncode:
        said = [line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()]
        errors = [place for place, line in enumerate(said) if _ERROR.match(line)]
        raise PlanError(" ".join(said[errors[0] : errors[0] + 3]) if errors else "snakemake has no plan")
    commands = [line.partition(_COMMAND)[2] for line in run.stdout.splitlines() if _COMMAND in line]
    jobs = [_job(shlex.split(command)) for command in commands]
    unplanned = set(targets) - {path for job in jobs for path in job.outputs}
    if unplanned or not jobs:
        raise PlanError(
            f"snakemake printed no command that makes {min(unplanned, default='anything')}: is a profile `quiet`?"
        )
    return jobs


def _job(words: Sequence[str]) -> Job:
    """The job of a command line `PROGRAM --option values …`."""
    program, *rest = words
    options: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            values = options.setdefault(word.removeprefix("--"), [])
        else:
            values.append(word)
    settings, unrecorded = (json.loads(options.pop(name, ["{}"])[0]) for name in ("settings", "unrecorded"))
    for name in ("log", "threads"):
        options.pop(name, None)
    outputs = options.pop("output")
    inputs = {role: list(expanded(words)) for role, words in options.items()}
    return Job(program, inputs, outputs, settings, unrecorded)
