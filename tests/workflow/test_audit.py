"""Every number says where it comes from, and every broken link of its chain is found."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import SMALL, altered, replace, snakemake

from blindspots.audit import __main__, answer, plan, records, verify
from blindspots.audit.plan import PlanError
from blindspots.audit.records import CellError, Run
from blindspots.steps import artifacts

FLIPS = 200


def artifacts_of(jobs):
    return [job for job in jobs if job.outputs[0].endswith(".h5")]


def job_of(jobs, path):
    (job,) = [job for job in jobs if path in job.outputs]
    return job


def edit(run, cell, value):
    """Change the value of a cell by hand."""
    path = run.folder / f"results/{cell.partition(',')[0]}.cells.csv"
    text, edited = re.subn(f"(?m)^({cell}),[^,]+", rf"\g<1>,{value}", path.read_text())
    assert edited == 1
    replace(path, text.encode())


def reasons(run, jobs):
    return {(broken.path, broken.reason) for broken in verify.broken_links(run, jobs)}


def test_every_link_of_a_finished_run_holds(finished, jobs):
    assert len(artifacts_of(jobs)) > 50
    assert not reasons(Run(finished), artifacts_of(jobs))


def test_every_cell_of_every_table_answers(finished):
    run, answered = Run(finished), 0
    for path in sorted((finished / "results").glob("*.cells.csv")):
        for cell in pd.read_csv(path).itertuples():
            found = answer.answer(run, cell.table, cell.row, cell.column)
            assert found["cell"]["value"] == pytest.approx(cell.value)
            seeds = 2 if cell.table == "adversarial_training" else 1
            assert len(found["sources"]) == (2 * seeds if cell.unit in ("probability", "points") else seeds)
            for source in found["sources"]:
                with artifacts.read(finished / source["artifact"]) as file:
                    values = file[source["array"]][()]
                assert source["shape"] == list(values.shape)
            assert {"results/data.h5", "results/pictures.h5"} & found["files"].keys()
            assert not any(link["broken"] for link in found["files"].values())
            assert not found["broken"]
            assert f"{cell.row} × {cell.column}" in answer.format_answer(found)
            answered += 1
    assert answered > 100


def test_a_cells_chain_has_its_networks_and_images_and_no_others(finished):
    chain = answer.answer(Run(finished), "table4", "M1", "M2")["files"]
    assert {path for path in chain if "/networks/" in path} == {
        "results/networks/M1.h5",
        "results/networks/M2.h5",
    }
    assert [path for path in chain if "/adversarial/" in path] == ["results/adversarial/test/M1/1-of-1.h5"]
    chain = answer.answer(Run(finished), "table3", "M2", "error_test")["files"]
    assert chain.keys() == {
        "results/evaluation/table3.h5",
        "results/data.h5",
        "results/networks/M2.h5",
        "results/splits.h5",
    }
    assert chain["results/evaluation/table3.h5"]["inputs"] == ["results/data.h5", "results/networks/M2.h5"]
    record = chain["results/networks/M2.h5"]["record"]
    assert record["settings"]["seed"] == 3
    assert record["program"] == "scripts.train_network"
    assert {"git_commit", "packages", "device", "started", "code_modules"} <= record.keys()


def test_a_cell_that_is_not_there_is_told_with_those_that_are(finished):
    with pytest.raises(CellError, match=r"its rows are M1, M1_prime, M2, .*; its columns M1, M1_prime, M2"):
        Run(finished).cell("table4", "M9", "M1")
    with pytest.raises(
        CellError, match=r"of the tables there are adversarial_training, figure5, figure7, .*table4"
    ):
        Run(finished).cell("table9", "M1", "M1")


def test_a_flipped_byte_anywhere_is_found(run, jobs, monkeypatch):
    real, made = verify.rerun_program, {}

    def rerun_once(job, outputs):
        # What a table is made from stays the same here, and so does what is made from it.
        if job.outputs[0] not in made:
            result = real(job, outputs)
            made[job.outputs[0]] = (result, [Path(path).read_bytes() for path in outputs])
        result, contents = made[job.outputs[0]]
        for path, content in zip(outputs, contents, strict=True):
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_bytes(content)
        return result

    monkeypatch.setattr(verify, "rerun_program", rerun_once)
    rng = np.random.default_rng(0)
    files = [path for job in jobs for path in job.outputs]
    dependents = {path: [job for job in jobs if path in job.outputs] for path in files}
    for path in rng.choice(files, FLIPS):
        target = run.folder / path
        before = target.read_bytes()
        content = bytearray(before)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        replace(target, bytes(content))
        broken = list(verify.broken_links(Run(run.folder), dependents[path]))
        assert path in {link.path for link in broken}, path
        replace(target, before)


@pytest.mark.parametrize(
    ("path", "wanted", "spared"),
    [
        ("results/data.h5", {"table3": ["M2 × error_test"], "table4": ["M1 × M2", "noise_0.06 × M1"]}, []),
        (
            "results/networks/M2.h5",
            {"table3": ["M2 × error_P1"], "table4": ["M1 × M2", "M2 × M1"]},
            ["M1 × M1_prime"],
        ),
        ("results/refined/test/M1/1-of-1.h5", {"table3": ["M1 × refined"]}, ["M1 × distortion", "M1 × M2"]),
        ("results/table4.csv", {"table4": ["all"]}, []),
    ],
)
def test_a_broken_file_invalidates_the_cells_that_rest_on_it_and_no_others(run, jobs, path, wanted, spared):
    target = run.folder / path
    replace(target, target.read_bytes()[:-1] + b"?")
    cells = verify.invalidated_cells(Run(run.folder), jobs, {path})
    for table, names in wanted.items():
        assert set(names) <= set(cells[table])
    assert not {*spared} & {name for table in ("table3", "table4") for name in cells.get(table, [])}


def test_a_missing_file_is_found(run, jobs):
    (run.folder / "results/networks/M1.h5").unlink()
    assert ("results/networks/M1.h5", "is missing") in reasons(run, artifacts_of(jobs))


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ("results/networks/M1.h5", lambda d, r: d["parameters/1.weight"][0].__iadd__(1), None),
        ("results/adversarial/test/M2/1-of-1.h5", lambda d, r: d["distortion"][0].__imul__(0.5), None),
        (
            "results/data.h5",
            lambda d, r: d["test/labels"][0].__iadd__(1),
            "test_labels that are not the file",
        ),
        (
            "results/networks/M1.h5",
            lambda d, r: r.update(settings=r["settings"].replace('"seed": 1', '"seed": 9')),
            "other settings",
        ),
        ("results/networks/M1.h5", lambda d, r: r.update(code="0" * 64), "made by other code"),
        (
            "results/noise/test/0.06/1-of-1.h5",
            lambda d, r: r.update(program="scripts.amplify_examples"),
            "was made by scripts.amplify_examples",
        ),
    ],
)
def test_what_was_changed_and_sealed_again_is_found(run, jobs, path, change, reason):
    altered(run.folder / path, change)
    found = reasons(Run(run.folder), artifacts_of(jobs))
    others = {broken for broken, why in found if f"made from another {path}" in why}
    assert others, "what was made from it does not fit it any more"
    if reason:
        assert any(broken == path and reason in why for broken, why in found)


def test_a_file_copied_over_another_is_found(run, jobs):
    here, there = (run.folder / f"results/networks/{name}.h5" for name in ("M1", "M2"))
    replace(there, here.read_bytes())
    found = reasons(Run(run.folder), artifacts_of(jobs))
    assert any(path == "results/networks/M2.h5" and "other settings" in why for path, why in found)


def test_a_record_copied_from_another_file_is_found(run, jobs):
    with artifacts.read(run.folder / "results/networks/M1.h5") as file:
        record = dict(file.attrs)
    path = run.folder / "results/networks/M2.h5"
    replace(path, path.read_bytes())
    with h5py.File(path, "r+") as file:
        for key, value in record.items():
            file.attrs[key] = value
    content = path.read_bytes()[artifacts._BLOCK :]
    path.write_bytes(artifacts._seal(hashlib.sha256(content)) + content)
    found = {
        why
        for broken, why in reasons(Run(run.folder), artifacts_of(jobs))
        if broken == "results/networks/M2.h5"
    }
    assert "has arrays or a record that are not those that it was written with" in found


@pytest.mark.parametrize("ending", ["csv", "md", "html", "cells.csv"])
def test_a_table_that_was_edited_by_hand_is_found(run, jobs, ending):
    path = run.folder / f"results/table4.{ending}"
    text = path.read_text()
    assert "100" in text
    replace(path, text.replace("100", "99", 1).encode())
    ((broken, why),) = reasons(run, [job_of(jobs, f"results/table4.{ending}")])
    assert broken == f"results/table4.{ending}"
    assert "changed by hand" in why


def test_other_settings_than_were_run_are_found(finished, config, jobs):
    other = json.loads(json.dumps(config))
    other["networks"]["M2"]["seed"] = 99
    found = reasons(Run(finished), artifacts_of(plan.plan(["results/table4.csv"], finished, other)))
    assert (
        "results/networks/M2.h5",
        "was made with other settings than the configuration says: seed",
    ) in found
    assert not any(path == "results/networks/M1.h5" for path, _ in found)


def test_other_code_is_found_by_module(finished, monkeypatch, jobs):
    real = records.fingerprint

    def changed(program):
        print_ = real(program)
        return (
            print_._replace(sha256="0" * 64, modules=print_.modules | {"blindspots.attack.sqp": "0"})
            if "refine" in program
            else print_
        )

    monkeypatch.setattr(records, "fingerprint", changed)
    found = reasons(Run(finished), artifacts_of(jobs))
    assert {why for _, why in found} == {"was made by other code: blindspots.attack.sqp"}
    assert {path.split("/")[1] for path, _ in found} == {"refined"}


def test_the_rule_passes_on_a_run_that_was_moved_and_fails_on_a_broken_one(clone):
    whole = snakemake(clone, *SMALL, "audit", cores=1)
    assert whole.returncode == 0, whole.stderr
    assert "every link holds" in whole.stdout + whole.stderr
    table = clone / "results/table3.csv"
    table.write_text(table.read_text().replace("0.00", "0.01", 1))
    broken = snakemake(clone, *SMALL, "audit", cores=1)
    assert broken.returncode != 0
    assert re.findall("^BROKEN .*", broken.stdout, re.MULTILINE) == [
        "BROKEN results/table3.csv is not what its inputs give: changed by hand, or made from others"
    ]
    assert re.findall("^INVALID .*", broken.stdout, re.MULTILINE) == ["INVALID table3: all"]


def test_what_no_rule_makes_is_named_and_the_rest_is_checked(run, config, capsys):
    (run.folder / "results/mine.png").write_bytes(b"a picture")
    (run.folder / "results/ablations/old").mkdir(parents=True)
    (run.folder / "results/ablations/old/table3.cells.csv").write_text("of a choice that was dropped")
    replace(run.folder / "results/table4.csv", b"broken")
    assert __main__.main(["--directory", str(run.folder), "--config", json.dumps(config)]) == 1
    said = capsys.readouterr().out
    assert "UNKNOWN results/mine.png is made by no rule" in said
    assert "UNKNOWN results/ablations/old/table3.cells.csv" in said
    assert re.findall(r"^BROKEN (\S+)", said, re.MULTILINE) == ["results/table4.csv"]


def test_a_table_whose_cells_are_gone_is_not_passed_over(tmp_path, config, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/table4.md").write_text("all is well")
    assert __main__.main(["--directory", str(tmp_path), "--config", json.dumps(config)]) == 1
    assert "BROKEN results/table4.cells.csv is missing" in capsys.readouterr().out


def test_a_folder_with_nothing_of_the_workflow_does_not_pass(tmp_path, config, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mine.png").write_bytes(b"a picture")
    assert __main__.main(["--directory", str(tmp_path), "--config", json.dumps(config)]) == 2
    said = capsys.readouterr()
    assert "UNKNOWN results/mine.png" in said.out
    assert "is made by this workflow" in said.err


def test_a_cell_without_a_value_has_its_chain_like_any_other(run, capsys):
    edit(run, "table3,M1,distortion", "")
    assert __main__.main(["table3", "M1", "distortion", "--directory", str(run.folder)]) == 1
    assert "table3, M1 × distortion: – (n = " in (said := capsys.readouterr().out)
    assert "BROKEN: is –, but its array gives 0." in said
    altered(
        run.folder / "results/adversarial/test/M1.h5",
        lambda values, _: values.update(
            distortion=(np.full_like(values["distortion"][0], np.nan), values["distortion"][1])
        ),
    )
    assert __main__.main(["table3", "M1", "distortion", "--directory", str(run.folder)]) == 0


def test_a_difference_has_the_chains_of_both_networks(finished):
    found = answer.answer(Run(finished), "adversarial_training", "sigmoid_pools", "less_sigmoid_decay")
    files = {path for path in found["files"] if "/networks/" in path}
    shown = answer.format_answer(found)
    assert {Path(path).stem for path in files} == {"sigmoid_pools", "sigmoid_decay"}
    assert all(path in shown for path in files)


def test_an_artifact_of_a_program_that_is_gone_is_named(run, jobs):
    path = "results/networks/M1.h5"
    altered(run.folder / path, lambda values, record: record.update(program="scripts.renamed"))
    why = {reason for at, reason in reasons(run, [job_of(jobs, path)]) if at == path}
    assert "was made by scripts.renamed, which is no program of this workflow now" in why


def test_a_quiet_profile_hides_nothing(run, config, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("quiet: [rules]\n")
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path))
    assert plan.plan(["results/table4.cells.csv"], run.folder, config)


def test_a_plan_without_what_was_asked_for_is_none(run, config, monkeypatch):
    real = plan.subprocess.run
    monkeypatch.setattr(
        plan.subprocess, "run", lambda command, **options: real([*command, "--quiet", "rules"], **options)
    )
    with pytest.raises(PlanError, match="printed no command that makes results/table4"):
        plan.plan(["results/table4.cells.csv"], run.folder, config)


def test_an_edited_number_is_told_when_it_is_asked_for(run, capsys):
    edit(run, "table4,M1,M2", "77.7")
    assert __main__.main(["table4", "M1", "M2", "--directory", str(run.folder)]) == 1
    assert "BROKEN: is 77.7, but its array gives" in capsys.readouterr().out


def test_the_command_tells_one_cell_to_people_and_to_programs(finished, capsys):
    assert __main__.main(["table4", "M1", "M2", "--directory", str(finished)]) == 0
    told = capsys.readouterr().out
    assert "table4, M1 × M2" in told
    assert "scripts.train_network" in told
    assert __main__.main(["table4", "M1", "M2", "--directory", str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sources"][0]["array"] == "misclassified/M1/M2"
    assert __main__.main(["table4", "M1", "M7", "--directory", str(finished)]) == 2
    assert "has no cell M1 × M7" in capsys.readouterr().err


def test_the_command_bears_a_reader_that_stops_and_a_terminal_of_few_letters(finished):
    command = [sys.executable, "-m", "blindspots.audit", "table4", "M1", "M2"]
    options = {"cwd": finished, "env": os.environ | {"PYTHONIOENCODING": "ascii"}}
    whole = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    assert "Traceback" not in whole.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as run:
        run.stdout.close()
        assert run.stderr.read() == b""


def test_records_are_read_as_they_were_written(finished):
    record = records.Artifact(finished, "results/networks/M1.h5").record
    assert record["settings"]["network"]["units"] == [20, 20, 10]
    assert isinstance(record["wall_seconds"], float)
    assert isinstance(record["git_dirty"], bool | None)
    assert record["program"] == "scripts.train_network"


def test_small_numbers_of_a_configuration_in_json_are_numbers(tmp_path):
    text = json.dumps({"training": {"gradient_tolerance": 1e-5, "history": 3}, "name": "1e-05"})
    (tmp_path / "as_run.json").write_text(text)
    (tmp_path / "own.yaml").write_text("training: {gradient_tolerance: 1.0e-5}\n")
    assert (
        __main__._configuration(text)
        == __main__._configuration(str(tmp_path / "as_run.json"))
        == json.loads(text)
    )
    assert __main__._configuration(str(tmp_path / "own.yaml")) == {"training": {"gradient_tolerance": 1e-5}}


@pytest.mark.parametrize("content", [b"", b"- a list\n", b"3\n", b"\xff\xfe", b"a: [\n"])
def test_a_file_that_is_no_configuration_is_told_in_one_line(tmp_path, capsys, content):
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(SystemExit):
        __main__.main(["--config", str(tmp_path / "own.yaml")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"own\.yaml (has no keys of a configuration|is neither JSON nor a readable file of it)", last
    )


def test_of_several_configurations_each_changes_those_before(finished, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(__main__, "plan", lambda targets, folder, config, results: asked.append(config) or [])
    for name, text in {
        "one.yaml": "attack: {seed: 1, sample: 5}\n",
        "two.json": '{"attack": {"seed": 2}}',
    }.items():
        (tmp_path / name).write_text(text)
    given = [
        "--config",
        str(tmp_path / "one.yaml"),
        "--config",
        str(tmp_path / "two.json"),
        "--config",
        '{"replicates": 3}',
    ]
    __main__.main(["--directory", str(finished), *given])
    assert asked == [{"attack": {"seed": 2, "sample": 5}, "replicates": 3}]
