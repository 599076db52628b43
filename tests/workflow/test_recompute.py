"""Proof by recomputation: the same bits here, within a stated
tolerance elsewhere, and no proof of what was changed."""

import json
import re

import pytest
from conftest import ROOT, altered, replace

from blindspots.audit import __main__, plan
from blindspots.audit.plan import Job
from blindspots.audit.recompute import (
    ONE_LEVEL,
    RecomputationError,
    _link,
    _read,
    allowed,
    format_recomputation,
    recompute,
)
from blindspots.audit.records import Run

EVALUATION = "results/evaluation/table4.h5"


def again(run, jobs, *cell, deep=False):
    said = []
    return recompute(run, jobs, *cell, deep=deep, report=said.append), said


def made_elsewhere(path):
    altered(path, lambda arrays, record: record.update(cpu="another processor"))


def edit_cell(run, table, row, column, changed):
    path = run.folder / f"results/{table}.cells.csv"
    text, edited = re.subn(rf"(?m)^({table},{row},{column}),[^,]+", rf"\g<1>,{changed!r}", path.read_text())
    assert edited == 1
    replace(path, text.encode())


def test_a_cell_is_computed_again_from_its_parents_and_nothing_of_the_run_is_changed(run, jobs):
    def state():
        return {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}

    before = state()
    found, said = again(run, jobs, "table4", "M1", "M2")
    assert state() == before
    assert found.holds
    assert found.tolerance == 0
    assert [(file.path, file.differences, file.environment) for file in found.files] == [(EVALUATION, [], [])]
    assert said == [f"1 of 1: {EVALUATION}"]
    assert "HOLDS" in "\n".join(format_recomputation(found))


def test_what_is_gathered_is_computed_again_and_not_only_copied(run, jobs):
    found, _ = again(run, jobs, "table3", "M1", "distortion")
    assert found.holds
    assert [file.path for file in found.files] == [
        "results/adversarial/test/M1/1-of-1.h5",
        "results/adversarial/test/M1.h5",
    ]


def test_the_whole_chain_is_computed_from_the_raw_bytes_without_any_source(run, jobs, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the cache of the raw files
    monkeypatch.setenv("BLINDSPOTS_DATA", str(tmp_path))
    found, _ = again(run, jobs, "table4", "M1", "M2", deep=True)
    assert found.holds
    assert {file.path for file in found.files} == {
        *("results/data.h5", "results/splits.h5", "results/networks/M1.h5", "results/networks/M2.h5"),
        *("results/adversarial/test/M1/1-of-1.h5", EVALUATION),
    }
    assert not any(file.differences for file in found.files)


def test_a_cell_of_photographs_is_computed_from_the_raw_bytes_too(run, jobs):
    found, _ = again(run, jobs, "figure5", "EfficientNetLite0", "EfficientNetLite0", deep=True)
    assert found.holds
    assert {"results/pictures.h5", "results/networks/EfficientNetLite0.h5"} <= {
        file.path for file in found.files
    }
    assert not any(file.differences for file in found.files)


def test_a_folder_of_pictures_is_found_from_where_the_run_is(tmp_path):
    there, again = Run(tmp_path / "run"), Run(tmp_path / "scratch" / "run")
    (there.folder / "mine").mkdir(parents=True)
    (there.folder / "mine/a.png").write_bytes(b"a picture")
    job = Job("scripts.fetch_pictures", {}, ["results/pictures.h5"], {"folder": "mine"}, {})
    _link(set(_read(job)), [job], there, again)
    assert (again.folder / "mine/a.png").read_bytes() == b"a picture"


def test_a_run_with_other_settings_is_told_before_anything_is_computed(run, jobs):
    other = [
        job._replace(settings=job.settings | {"rows": []}) if EVALUATION in job.outputs else job
        for job in jobs
    ]
    with pytest.raises(
        RecomputationError, match=rf"{EVALUATION} was made with other settings .* \(rows\): give .* --config"
    ):
        again(run, other, "table4", "M1", "M2")


def test_a_cell_that_was_edited_does_not_hold(run, jobs):
    value = run.cell("table4", "M1", "M2")["value"]
    edit_cell(run, "table4", "M1", "M2", value + 2)
    found, _ = again(run, jobs, "table4", "M1", "M2")
    assert (found.value, found.again) == (value + 2, value)
    assert not found.holds
    assert "DOES NOT HOLD" in "\n".join(format_recomputation(found))


def test_an_artifact_that_was_edited_and_sealed_again_does_not_hold_and_says_where(run, jobs):
    def flip(arrays, record):
        values = arrays["misclassified/M1/M2"][0]
        values[:3] = ~values[:3]

    altered(run.folder / EVALUATION, flip)
    found, _ = again(run, jobs, "table4", "M1", "M2")
    assert not found.holds
    (file,) = found.files
    assert [difference.split()[0] for difference in file.differences] == ["misclassified/M1/M2"]
    assert re.search(r"in 3 of \d+ values", file.differences[0])


def test_what_was_computed_elsewhere_may_differ_by_the_tolerance_and_no_more(run, jobs):
    value = run.cell("table4", "M1", "M2")["value"]
    made_elsewhere(run.folder / EVALUATION)
    found, _ = again(run, jobs, "table4", "M1", "M2")
    assert found.holds
    assert found.tolerance == pytest.approx(100 / run.cell("table4", "M1", "M2")["n"])
    assert found.reason
    assert [change.split(":")[0] for change in found.files[0].environment] == ["cpu"]
    edit_cell(run, "table4", "M1", "M2", value + 1.5 * found.tolerance)
    assert not again(Run(run.folder), jobs, "table4", "M1", "M2")[0].holds
    made_elsewhere(run.folder / "results/refined/test/M1/1-of-1.h5")
    distortion, _ = again(Run(run.folder), jobs, "table3", "M1", "refined")
    assert distortion.holds
    assert 0 < distortion.tolerance < 0.01 * distortion.value


@pytest.mark.parametrize(
    ("unit", "value", "n", "wanted"),
    [
        ("%", 2.0, 10_000, ONE_LEVEL.rate),
        ("%", 2.0, 50, 2.0),  # one image
        ("points", -0.3, 5, 2 * ONE_LEVEL.rate),  # n trainings, which say nothing of the images
        ("rms", 0.06, 100, 0.06 * ONE_LEVEL.distortion),
    ],
)
def test_the_tolerance_is_in_a_cells_unit(unit, value, n, wanted):
    assert allowed({"unit": unit, "value": value, "n": n}, ONE_LEVEL) == pytest.approx(wanted)


def test_a_program_that_fails_is_told_in_one_line(run, jobs):
    network = run.folder / "results/networks/M3.h5"
    (run.folder / "results/networks/M2.h5").rename(network)
    with pytest.raises(
        RecomputationError, match=r"scripts\.evaluate_distorted failed to make .*M2\.h5 cannot be read"
    ):
        again(run, jobs, "table4", "M1", "M2")


def test_the_command_says_it_to_people_and_to_programs_and_by_its_status(run, config, capsys):
    arguments = [
        "table3",
        "M2",
        "error_test",
        "--recompute",
        "--directory",
        str(run.folder),
        "--config",
        json.dumps(config),
    ]
    assert __main__.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"]
    assert found["files"][0]["path"] == "results/evaluation/table3.h5"
    edit_cell(run, "table3", "M2", "error_test", 77)
    assert __main__.main(arguments) == 1
    told = capsys.readouterr().out
    assert "results/evaluation/table3.h5: the same bits" in told
    assert "DOES NOT HOLD" in told


def test_a_configuration_may_be_a_file(run, capsys):
    arguments = ["table3", "M2", "error_test", "--recompute", "--directory", str(run.folder)]
    assert __main__.main([*arguments, "--config", str(ROOT / "config/small.yaml")]) == 0


@pytest.mark.parametrize("wrong", ["no/such.yaml", "{no: [json"])
def test_a_configuration_that_cannot_be_read_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["--config", wrong])
    assert stop.value.code == 2
    assert f"{wrong} is neither JSON nor a readable file of it" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--recompute"], ["table4", "M1", "M2", "--deep"]])
def test_options_that_say_nothing_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(arguments)
    assert stop.value.code == 2
    assert "table4 M1 M2 --recompute" in capsys.readouterr().err


def test_a_run_in_a_folder_below_is_computed_again_too(run, config):
    """Its plan has paths that lead up, to the paper's numbers."""
    jobs = plan.plan(["results/table4.cells.csv"], run.folder, config)
    (table,) = [job for job in jobs if "results/table4.cells.csv" in job.outputs]
    assert table.inputs["paper"][0].startswith("..")
    assert again(run, jobs, "table4", "M1", "M2")[0].holds
