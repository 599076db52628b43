"""What every program of the workflow does before its own work."""

import subprocess
import sys

import pytest
from conftest import ROOT, copy_code

from blindspots.parallel.cores import available_cores
from blindspots.steps.artifacts import Array
from blindspots.steps.fingerprint import fingerprint
from blindspots.steps.step import run

MODULE = "scripts.gather_shards"


@pytest.mark.parametrize(("code", "status"), [(fingerprint(MODULE).sha256, 0), (None, 0), ("0" * 64, 1)])
def test_code_that_has_changed_since_the_workflow_was_planned_is_not_run(tmp_path, capfd, code, status):
    settings = "{}" if code is None else f'{{"code": "{code}"}}'
    arguments = ["--output", str(tmp_path / "made.h5"), "--settings", settings]
    assert run(lambda step: step.write({"a": Array(1, "one")}), MODULE, (), arguments) == status
    assert (tmp_path / "made.h5").exists() == (status == 0)
    wanted = f"the code of {MODULE} has changed since the workflow started: run the command again"
    assert (wanted in capfd.readouterr().err) == (status == 1)


def said(*words, folder=ROOT / "workflow"):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a program with the one that started it")
def test_who_imports_a_program_does_not_end_with_its_parent():
    ends_with_it = (
        "import ctypes, scripts; c = ctypes.c_int(); "
        "ctypes.CDLL(None).prctl(2, ctypes.byref(c)); print(c.value)"
    )
    assert said("-c", ends_with_it) == "0"


def test_the_commit_is_the_projects_and_not_of_a_repository_around_it(tmp_path):
    for words in (
        ("init", "-q"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"),
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = "from blindspots.steps.step import _git; print(_git('rev-parse', 'HEAD'))"
    folder = copy_code(tmp_path / "project")
    assert said("-c", commit, folder=folder / "workflow") == "None"
    subprocess.run(["git", "clone", "-q", tmp_path, tmp_path / "other"], check=True)
    (tmp_path / "other/.git").rename(folder / ".git")
    assert len(said("-c", commit, folder=folder / "workflow")) == 40


def test_the_commit_is_the_projects_whatever_repository_a_git_hook_runs_for(tmp_path, monkeypatch):
    made_by = ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m")
    folder = copy_code(tmp_path / "project")
    for place, message in ((folder, "one"), (tmp_path / "other", "two")):
        place.mkdir(exist_ok=True)
        subprocess.run(["git", "init", "-q"], cwd=place, check=True)
        subprocess.run(["git", *made_by, message], cwd=place, check=True)
    commit = "from blindspots.steps.step import _git; print(_git('log', '--format=%s'))"
    for name, value in {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_INDEX_FILE": ".git/index"}.items():
        monkeypatch.setenv(name, str(tmp_path / "other" / value))
    assert said("-c", commit, folder=folder / "workflow") == "one"


@pytest.mark.parametrize("command", ["scripts.split_images", "blindspots.audit"])
def test_no_program_imports_from_the_folder_of_the_run(tmp_path, monkeypatch, command):
    (tmp_path / "scripts").mkdir()
    for name in ("random.py", "csv.py", "scripts/__init__.py", "scripts/split_images.py"):
        (tmp_path / name).write_text("raise SystemExit('foreign code')")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow"))
    safe = ["-P"] if command.startswith("scripts") else []  # as the rules say, and as a person types it
    assert said(*safe, "-m", command, "--help", folder=tmp_path).startswith("usage: ")


def test_every_rule_starts_its_program_without_the_folder_of_the_run_on_its_path():
    lines = [line for path in (ROOT / "rules").glob("*.smk") for line in path.read_text().splitlines()]
    commands = [line for line in lines if "exec python" in line]
    assert len(commands) > 20
    assert all("exec python -P -m " in line for line in commands)


def test_a_run_is_the_same_with_any_number_of_threads_but_not_with_other_settings(tmp_path):
    def identity(*arguments):
        found = []
        assert (
            run(
                lambda step: found.append(step.identity()),
                MODULE,
                (),
                ["--output", str(tmp_path / "made.h5"), *arguments],
            )
            == 0
        )
        return found[0]

    alone = identity()
    assert identity("--threads", "2") == alone
    assert identity("--settings", '{"seed": 1}') != alone


@pytest.mark.parametrize(("asked", "threads"), [(1, 1), (10_000, available_cores())])
def test_a_step_has_the_threads_that_it_is_given_but_no_more_than_there_are_cores(tmp_path, asked, threads):
    had = []
    arguments = ["--output", str(tmp_path / "made.h5"), "--threads", str(asked)]
    assert run(lambda step: had.append(step.threads), MODULE, (), arguments) == 0
    assert had == [threads]
