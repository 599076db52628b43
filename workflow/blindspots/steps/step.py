"""The frame around each program of the workflow: arguments, log and progress, threads, provenance, one-line errors."""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from blindspots.parallel.cores import available_cores
from blindspots.steps import artifacts
from blindspots.steps.fingerprint import WORKFLOW, fingerprint
from blindspots.steps.shards import expanded

log = logging.getLogger(__name__)


class StepError(Exception):
    """Bad input to a step, told in one line that names the thing, the value and the remedy."""


class Step:
    """One run of a program.

    Attributes: `settings` (dict), `unrecorded` (dict, what cannot change the result), `threads` (int), `output` (list of
    paths), and `inputs`, the paths of each input role. `threads` is as many as are asked for, but no more than this process
    has cores: no result depends on it.
    """

    def __init__(self, program: str, arguments: argparse.Namespace, roles: Sequence[str]):
        self.program = program
        self.settings: dict[str, Any] = dict(arguments.settings)
        self.code = self.settings.pop("code", None)
        self.unrecorded: dict[str, Any] = arguments.unrecorded
        self.threads: int = min(arguments.threads, available_cores())
        self.output: list[Path] = arguments.output
        self.inputs = {role: [Path(path) for path in expanded(getattr(arguments, role))] for role in roles}
        self.device = "cpu"  # as the record names it: what computes with torch says more
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    def input(self, role: str) -> Path:
        """The one path of a role that has a single file."""
        (path,) = self.inputs[role]
        return path

    def write(self, arrays: Mapping[str, artifacts.Array]) -> None:
        """Write the step's one artifact with its provenance record."""
        (path,) = self.output
        artifacts.write(path, arrays, self.record())
        log.info("wrote %s after %.1f s", path, time.monotonic() - self._clock)

    def identity(self) -> str:
        """The same for a run that makes the same: of the program, its settings and inputs, and what it runs on."""
        record = self.record()
        for key in ("git_commit", "git_dirty", "threads", "host", "started", "wall_seconds"):
            del record[key]
        return sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        made_by = fingerprint(self.program)
        inputs = {
            role: {str(path): artifacts.identity(path) for path in paths}
            for role, paths in self.inputs.items()
        }
        return {
            "program": self.program,
            "settings": self.settings,
            "inputs": inputs,
            "code": made_by.sha256,
            "code_modules": made_by.modules,
            "packages": _installed(made_by.packages),
            "git_commit": _git("rev-parse", "HEAD"),  # neither is known of a copy without its repository
            "git_dirty": None if (changes := _git("status", "--porcelain")) is None else changes != "",
            "device": self.device,
            "cpu": _cpu(),
            "threads": self.threads,
            "host": platform.node(),
            "started": self._started.isoformat(timespec="milliseconds"),
            "wall_seconds": round(time.monotonic() - self._clock, 3),
        }


def run(body: Callable[[Step], None], module: str, roles: Sequence[str], argv: Sequence[str] | None) -> int:
    """Parse the arguments, run the program's body, and turn an expected error into one line and exit status 1.

    roles: the names of the inputs; each becomes an option that takes one or more paths, for instance `--networks A B`, or
    `--shards 'folder/*-of-60.h5'` for sixty of them.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=sys.modules[body.__module__].__doc__
    )
    for role in roles:
        parser.add_argument(f"--{role}", nargs="*", required=True, metavar="FILE")
    parser.add_argument("--output", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--settings", type=json.loads, default={}, metavar="JSON", help="the step's named parameters"
    )
    parser.add_argument(
        "--unrecorded", type=json.loads, default={}, metavar="JSON", help="what cannot change the result"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="compute on so many cores, if there are"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="also write the log to this file")
    arguments = parser.parse_args(argv)
    made = arguments.output[0]
    label = f"{module.rpartition('.')[2]} {made.parent.name}/{made.stem}"
    _start_log(None, label)
    try:
        _start_log(arguments.log, label)
        step = Step(module, arguments, roles)
        if step.code not in (None, fingerprint(module).sha256):
            raise StepError(
                f"the code of {module} has changed since the workflow started: run the command again"
            )
        body(step)
        _date(step)
    except (StepError, artifacts.ArtifactError, OSError) as error:
        log.error("%s", error)
    except Exception as error:
        if _is_out_of_memory(error):
            log.error(
                "out of memory (%s): give the job more, or choose a smaller attack.images_per_job", error
            )
        else:
            log.exception("unexpected error")
    else:
        return 0
    return 1


def _date(step: Step) -> None:
    """Bring inputs from the future, where the clock has jumped back, to the present: Snakemake refuses what is older."""
    for path in {path for paths in step.inputs.values() for path in paths}:
        if path.stat().st_mtime > time.time():
            with suppress(OSError):  # where it may not be touched, Snakemake says what is wrong
                os.utime(path)


def _is_out_of_memory(error: Exception) -> bool:
    """NumPy's error, or torch's on a CPU or a GPU. (Where the system kills the program instead, it can say nothing.)"""
    said = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in said or "out of memory" in said


class Progress:
    """A line in the log now and then while long work goes on."""

    def __init__(self, seconds: float = 5):
        self._seconds = seconds
        self._next = time.monotonic() + 1

    def __call__(self, message: str, *values: Any) -> None:
        if time.monotonic() >= self._next:
            log.info(message, *values)
            self._next = time.monotonic() + self._seconds


def _start_log(path: Path | None, label: str) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w"))
    logging.raiseExceptions = False  # a log that a full disk does not take has no traceback for each line
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s [{label}] %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )


def _installed(packages: Mapping[str, str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    """The processor's model: another one may round otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _git(*arguments: str) -> str | None:
    if not (WORKFLOW.parent / ".git").exists():
        return None  # git would go on to a repository that the project only lies in
    # Git hooks set variables that would lead to the repository that they run for.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", WORKFLOW, *arguments]
    try:
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
