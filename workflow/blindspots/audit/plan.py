"""The plan of the workflow for a configuration: what is to be made, and how.

It is Snakemake's own plan, from a dry run of the workflow as it is checked out.
"""

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

_COMMAND = "exec python -P -m "  # the start of every rule's command
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
    """There is no plan. The message is Snakemake's error."""


class UnknownTargetError(PlanError):
    """The workflow does not make a target with this configuration.

    Attributes:
        path: The target.
    """

    def __init__(self, path: str):
        """Make the message.

        Args:
            path: The target.
        """
        super().__init__(f"the workflow, as it is configured, does not make {path}")
        self.path = path


class Job(NamedTuple):
    """One run of a program. Paths are relative to the run's folder.

    Attributes:
        program: The dotted name of the program's module.
        inputs: The input files by role, in their order.
        outputs: The output files.
        settings: The named parameters.
        unrecorded: The parameters that do not change the result, such as the sources of files.
    """

    program: str
    inputs: dict[str, list[str]]
    outputs: list[str]
    settings: dict[str, Any]
    unrecorded: dict[str, Any]

    def arguments(self, outputs: Sequence[str]) -> list[str]:
        """Return the program's arguments with other outputs.

        Args:
            outputs: The output files.
        Returns:
            The arguments, without the unrecorded parameters.
        """
        inputs = [word for role, paths in self.inputs.items() for word in (f"--{role}", *collapsed(paths))]
        return [*inputs, "--output", *outputs, "--settings", json.dumps(self.settings)]


def plan(
    targets: Sequence[str], folder: Path, config: Mapping[str, Any] | None = None, results: str = "results"
) -> list[Job]:
    """Plan all jobs from the raw data to the targets.

    Args:
        targets: The files to be made. If there are none, the plan is for all default files.
        folder: The run's folder.
        config: The run's configuration; None for that of config/config.yaml.
        results: The path of the results in the run's folder.
    Returns:
        The jobs.
    Raises:
        UnknownTargetError: If the workflow does not make a target.
        PlanError: If Snakemake has no plan for another reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        snakefile = WORKFLOW.parent / "Snakefile"
        if results != "results":
            module = _MODULE.format(snakefile=str(snakefile), results=results)
            snakefile = Path(scratch, "Snakefile")
            snakefile.write_text(module, encoding="utf-8")
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
            f"snakemake printed no command that makes {min(unplanned, default='anything')}: "
            "is a profile `quiet`?"
        )
    return jobs


def _job(words: Sequence[str]) -> Job:
    """Parse the command line `PROGRAM --option values …` of a job."""
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
