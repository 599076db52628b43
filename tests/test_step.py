"""What every program of the workflow does before its own work."""

import pytest

from blindspots.artifacts import Dataset
from blindspots.fingerprint import fingerprint
from blindspots.step import run

MODULE = "scripts.gather"


@pytest.mark.parametrize(("code", "status"), [(fingerprint(MODULE).sha256, 0), (None, 0), ("0" * 64, 1)])
def test_code_that_has_changed_since_the_workflow_was_planned_is_not_run(tmp_path, capfd, code, status):
    settings = "{}" if code is None else f'{{"code": "{code}"}}'
    arguments = ["--output", str(tmp_path / "made.h5"), "--settings", settings]
    assert run(lambda step: step.write({"a": Dataset(1, "one")}), MODULE, (), arguments) == status
    assert (tmp_path / "made.h5").exists() == (status == 0)
    wanted = f"the code of {MODULE} has changed since the workflow started: run the command again"
    assert (wanted in capfd.readouterr().err) == (status == 1)
