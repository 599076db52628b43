"""What the tests share.

There are throw-away copies of the repository, and one finished run of the small variant.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import psutil
import pytest
import torch
import yaml
from filelock import FileLock

from blindspots.audit import plan
from blindspots.audit.records import Run
from blindspots.data import downloads
from blindspots.steps import artifacts

torch.set_num_threads(1)  # the tests' networks are so small that threads only wait for each other

hypothesis.settings.register_profile("untimed", deadline=None)  # machines and disks pause at times
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]
PROJECT = (
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "Snakefile",
    "pyproject.toml",
)
PROJECT += ("benchmarks", "config", "docs", "envs", "profiles", "rules", "tests", "workflow")
TABLES = ("results/table3.csv", "results/table4.csv")
SMALL = ("--configfile=config/small.yaml",)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="how often a run is killed at random moments")


def pytest_collection_modifyitems(items):
    """Start the tests on a cluster first, because they mostly wait."""
    items.sort(key=lambda item: item.path.name != "test_slurm.py")


@pytest.fixture(autouse=True)
def numbers_of_any_size():
    """Restore subnormal numbers after each test.

    A program that runs in this process flushes them to zero. Hypothesis refuses to run then.
    """
    yield
    torch.set_flush_denormal(False)


def copy_code(destination: Path) -> Path:
    """Copy the project, without the files made from it."""
    destination.mkdir(parents=True, exist_ok=True)
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, destination / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy2(source, destination / name)
    return destination


def command(*arguments: str, cores: int = 8) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]


def snakemake(
    folder: Path, *arguments: str, cores: int = 8, **environment: str
) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder, as a person would type it."""
    return subprocess.run(
        command(*arguments, cores=cores),
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1200,  # the small variant needs it beside other tests on two slow cores
    )


class Running:
    """A running Snakemake process, for tests that disturb it. It ends with the `with` block at the latest."""

    def __init__(self, folder: Path, arguments: list[str], environment: Mapping[str, str] = os.environ):
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe would fill, and stop it)
        self._process = subprocess.Popen(
            arguments, cwd=folder, env=environment, stdout=self._said, stderr=subprocess.STDOUT
        )
        self.engine = psutil.Process(self._process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        self._said.close()

    def end(self, seconds: float = 600) -> tuple[int, str]:
        """Wait for its end and return its exit status and its output. Raises subprocess.TimeoutExpired."""
        status = self._process.wait(seconds)
        self._said.seek(0)
        return status, self._said.read()


def planned_rules(run: subprocess.CompletedProcess) -> set[str]:
    """The rules that a dry run reports it would run, without the target rule."""
    assert run.returncode == 0, run.stderr + run.stdout
    assert "Nothing to be done" in run.stdout + run.stderr or "Job stats:" in run.stdout
    statistics = run.stdout.partition("Job stats:")[2].partition("total")[0]
    return set(re.findall(r"^(\w+) +\d+$", statistics, re.MULTILINE)) - {"all"}


@pytest.fixture(scope="session")
def mnist() -> None:
    """Skip a test that needs MNIST if MNIST is neither in the cache nor available from a source."""
    data = yaml.safe_load((ROOT / "config/config.yaml").read_text())["data"]
    checksums = {file["name"]: file["sha256"] for file in data["files"].values()}
    try:
        downloads.obtain(checksums, data["sources"], downloads.default_cache())
    except downloads.DownloadError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, mnist) -> Path:
    """A copy of the repository with a finished run of the small variant. Copy it before any change."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # one run for all workers
    folder, done = base / "finished/clone", base / "finished/done"
    with FileLock(base / "finished.lock"):
        if not done.exists():
            run = snakemake(copy_code(folder), *SMALL)
            assert run.returncode == 0, run.stderr
            done.touch()
    return folder


@pytest.fixture
def clone(finished, tmp_path) -> Path:
    """A finished run for one test alone. Its files keep their modification times."""
    return Path(shutil.copytree(finished, tmp_path / "clone", copy_function=shutil.copy2))


@pytest.fixture(scope="session")
def config() -> dict:
    """The configuration of the finished run."""
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    small = yaml.safe_load((ROOT / "config/small.yaml").read_text())

    def merged(base, change):
        both = {
            key: merged(base[key], value)
            for key, value in change.items()
            if isinstance(value, dict) and key in base
        }
        return base | change | both

    return merged(default, small)


@pytest.fixture(scope="session")
def jobs(finished, config) -> list[plan.Job]:
    """All jobs of the workflow, as it plans them for the finished run."""
    return plan.plan([], finished, config)


@pytest.fixture
def run(finished) -> Iterator[Run]:
    """A finished run whose files may be replaced. They are links, so do not change them in place."""
    # The folder is at the same depth, because plans have relative paths.
    folder = Path(tempfile.mkdtemp(dir=finished.parent))
    shutil.copytree(
        finished / "results",
        folder / "results",
        copy_function=lambda here, there: Path(there).hardlink_to(here),
    )
    yield Run(folder)
    shutil.rmtree(folder)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def altered(path, change):
    """Change an artifact and seal it again.

    No checksum in the file itself reveals such a change.
    """
    with artifacts.read(path) as file:
        arrays = {}
        file.visititems(
            lambda name, item: (
                arrays.update({name: (item[()], item.attrs["meaning"])})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
        types = {name: file[name].dtype for name in arrays}
        record = {key: getattr(value, "tolist", lambda v=value: v)() for key, value in file.attrs.items()}
        del record["content_sha256"]
    change(arrays, record)
    path.unlink()
    artifacts.write(
        path, {n: artifacts.Array(np.asarray(v, types[n]), m) for n, (v, m) in arrays.items()}, record
    )
