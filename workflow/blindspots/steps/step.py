"""The common frame of all programs: arguments, log, progress, threads, provenance and one-line errors."""

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
    """A step has bad input. The message is one line with the name, the value and the remedy."""


class Step:
    """One run of a program.

    Attributes:
        program: The dotted name of the program's module.
        settings: The named parameters.
        code: The SHA-256 of the program's code when the workflow started, or None.
        unrecorded: The parameters that cannot change the result.
        threads: The number of threads. It is the number requested, or the number of cores that this process
            may use, if that is smaller. No result depends on it.
        output: The paths of the output files.
        inputs: The paths of the input files, by role.
        device: The name of the device, for the record.
    """

    def __init__(self, program: str, arguments: argparse.Namespace, roles: Sequence[str]):
        """Start a step, and its clock.

        Args:
            program: The dotted name of the program's module.
            arguments: The parsed arguments.
            roles: The names of the inputs.
        """
        self.program = program
        self.settings: dict[str, Any] = dict(arguments.settings)
        self.code = self.settings.pop("code", None)
        self.unrecorded: dict[str, Any] = arguments.unrecorded
        self.threads: int = min(arguments.threads, available_cores())
        self.output: list[Path] = arguments.output
        self.inputs = {role: [Path(path) for path in expanded(getattr(arguments, role))] for role in roles}
        self.device = "cpu"  # for the record; `device.prepare` sets a more exact name
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    def input(self, role: str) -> Path:
        """Return the path of a role with a single file.

        Args:
            role: The name of the input.
        Returns:
            The path.
        Raises:
            ValueError: If the role does not have exactly one file.
        """
        (path,) = self.inputs[role]
        return path

    def write(self, arrays: Mapping[str, artifacts.Array]) -> None:
        """Write the step's only artifact with its provenance record.

        Args:
            arrays: The arrays by name.
        Raises:
            ArtifactError: If the artifact cannot be written.
            ValueError: If the step does not have exactly one output.
        """
        (path,) = self.output
        artifacts.write(path, arrays, self.record())
        log.info("wrote %s after %.1f s", path, time.monotonic() - self._clock)

    def identity(self) -> str:
        """Return a hash that is the same for all runs with the same result.

        It covers the program, its settings and inputs, and what it runs on.

        Returns:
            The SHA-256, in hexadecimal digits.
        """
        record = self.record()
        for key in ("git_commit", "git_dirty", "threads", "host", "started", "wall_seconds"):
            del record[key]
        return sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return the provenance record.

        Returns:
            The attributes of the step's artifact, by name. Times are in seconds, and the start is in UTC.
        """
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
            # Neither is known for a copy without its repository.
            "git_commit": _git("rev-parse", "HEAD"),
            "git_dirty": None if (changes := _git("status", "--porcelain")) is None else changes != "",
            "device": self.device,
            "cpu": _cpu(),
            "threads": self.threads,
            "host": platform.node(),
            "started": self._started.isoformat(timespec="milliseconds"),
            "wall_seconds": round(time.monotonic() - self._clock, 3),
        }


def run(body: Callable[[Step], None], module: str, roles: Sequence[str], argv: Sequence[str] | None) -> int:
    """Parse the arguments and run a program.

    An expected error becomes one line in the log.

    Args:
        body: The program.
        module: The dotted name of the program's module.
        roles: The names of the inputs. Each becomes an option that takes paths, for instance `--networks A
            B`, or `--shards 'folder/*-of-60.h5'` for sixty shards.
        argv: The arguments; None for those of the command line.
    Returns:
        The exit status, 0 for success or 1 for an error.
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
    """Set the time of inputs from the future to now. Such times come from a clock that was set back.

    Snakemake rejects outputs that are older than their inputs.
    """
    for path in {path for paths in step.inputs.values() for path in paths}:
        if path.stat().st_mtime > time.time():
            with suppress(OSError):  # Without the permission for this, Snakemake reports the problem.
                os.utime(path)


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise an out-of-memory error of NumPy, or of torch on a CPU or a GPU.

    If the system kills the program instead, it cannot report anything.
    """
    said = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in said or "out of memory" in said


class Progress:
    """A line in the log now and then during long work."""

    def __init__(self, seconds: float = 5):
        """Start the clock; the first line comes after one second at the earliest.

        Args:
            seconds: The least time in seconds between two lines.
        """
        self._seconds = seconds
        self._next = time.monotonic() + 1

    def __call__(self, message: str, *values: Any) -> None:
        """Write a line to the log, unless the last one is too recent.

        Args:
            message: The message, in the format of `logging`.
            *values: The values in the message.
        """
        if time.monotonic() >= self._next:
            log.info(message, *values)
            self._next = time.monotonic() + self._seconds


def _start_log(path: Path | None, label: str) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w"))
    logging.raiseExceptions = False  # A full disk must not give a traceback for each line of the log.
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
    """Return the processor's model. Another model may round differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _git(*arguments: str) -> str | None:
    if not (WORKFLOW.parent / ".git").exists():
        return None  # Git would go on to a repository around the project.
    # Git hooks set variables that point to the repository that they run for.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", WORKFLOW, *arguments]
    try:
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
