"""Which numbers of Tables 1 to 4 are held against the paper's, from artifacts made up for them."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest

from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array
from scripts import tabulate_baseline, tabulate_transfer

IMAGES = 1000
PAPER = """row,column,printed,n,amplified_to,network
M1,M1,100,256,,
M1_amplified,M1,27,256,0.1,
noise_0.1,M1,2.6,10000,,
M1,distortion,0.062,256,,
M1,error_test,2.0,10000,,
"""
SIZES = np.random.default_rng(0).normal(0.062, 0.01, IMAGES)
STATUS = h5py.enum_dtype({"not found": 0, "converged": 1}, basetype=np.uint8)


@pytest.fixture
def verdicts(tmp_path):
    """Runs one of the programs in this process and gives its
    cells that have a number of the paper, with their verdicts."""
    (tmp_path / "paper.csv").write_text(PAPER)

    def call(program, settings, **files):
        files |= {"paper": ["paper.csv"], "output": ["t.csv", "t.md", "t.html", "t.cells.csv"]}
        words = [
            word
            for role, names in files.items()
            for word in (f"--{role}", *(str(tmp_path / name) for name in names))
        ]
        common = {"table": "t", "columns": ["M1"], "replicates": 1, "attack": {"target": "random"}}
        assert program.main([*words, "--settings", json.dumps(common | settings)]) == 0
        cells = pd.read_csv(tmp_path / "t.cells.csv", dtype={"paper": str}).set_index(["row", "column"])
        return {
            name: (cell["paper"], cell["verdict"])
            for name, cell in cells.iterrows()
            if isinstance(cell["paper"], str)
        }

    return call


def transfer(verdicts, folder, missed=0, amplified_to=0.1, comparable=True):
    """Of networks that err in 100, 90 and 2.6 % of the rows."""
    rates = {"M1": 1.0, "M1_amplified": 0.9, "noise_0.1": 0.026}
    values = {f"misclassified/{row}/M1": np.arange(IMAGES) < IMAGES * share for row, share in rates.items()}
    values |= {f"failures/{row}": 0 if row == "noise_0.1" else missed for row in rates}
    artifacts.write(folder / "e.h5", {name: Array(value, "some") for name, value in values.items()}, {})
    artifacts.write(folder / "d.h5", {"distortion": Array(SIZES, "some")}, {})
    rows = [{"name": "M1", "network": "M1", "stddev": None}]
    rows.append({"name": "M1_amplified", "network": "M1", "stddev": amplified_to})
    rows.append({"name": "noise_0.1", "network": None, "stddev": 0.1})
    settings = {"examples": "adversarial", "average_distortion": True, "rows": rows, "comparable": comparable}
    settings["measured"] = [row["name"] for row in rows]
    files = {"evaluation": ["e.h5"], "distorted": ["d.h5"] * 3, "refined": ["d.h5"]}
    return verdicts(tabulate_transfer, settings, **files)


def baseline(verdicts, folder, missed=0, comparable=True):
    """Of a network that errs in 2 % of the images."""
    success = np.arange(IMAGES) >= missed
    found = {
        "success": success,
        "distortion": np.where(success, SIZES, np.nan),
        "residual": np.where(success, 0, np.nan),
    }
    classes = {"predicted": np.zeros(IMAGES), "labels": np.zeros(IMAGES), "target": np.ones(IMAGES)}
    found |= {"status": success.astype(np.uint8).astype(STATUS)} | classes
    artifacts.write(folder / "a.h5", {name: Array(value, "some") for name, value in found.items()}, {})
    artifacts.write(folder / "o.h5", {"misclassified/test/M1": Array(np.arange(IMAGES) < 20, "some")}, {})
    artifacts.write(folder / "n.h5", {"converged": Array(True, "some")}, {})
    settings = {"errors_on": ["test"], "linear": [], "refined_to": {"M1": 1e-3}, "comparable": comparable}
    files = {
        "originals": ["o.h5"],
        "adversarial": ["a.h5"],
        "refined": ["a.h5"],
        "exact": [],
        "networks": ["n.h5"],
    }
    return verdicts(tabulate_baseline, settings, **files)


def test_the_rates_and_sizes_of_examples_are_held_against_the_papers(verdicts, tmp_path):
    assert transfer(verdicts, tmp_path) == {
        ("M1", "M1"): ("100", "agrees"),
        ("M1", "distortion"): ("0.062", "agrees"),
        ("M1_amplified", "M1"): ("27", "differs"),
        ("noise_0.1", "M1"): ("2.6", "agrees"),
    }
    assert baseline(verdicts, tmp_path) == {
        ("M1", "error_test"): ("2.0", "agrees"),
        ("M1", "distortion"): ("0.062", "agrees"),
    }


@pytest.mark.parametrize("table", [transfer, baseline])
def test_none_is_where_the_configuration_says_that_they_cannot_be_compared(table, verdicts, tmp_path):
    assert {verdict for _, verdict in table(verdicts, tmp_path, comparable=False).values()} == {
        "not comparable"
    }


def test_examples_of_which_some_were_not_found_are_not_held_against_all_of_the_papers(verdicts, tmp_path):
    assert {name: verdict for name, (_, verdict) in transfer(verdicts, tmp_path, missed=3).items()} == {
        ("M1", "M1"): "not comparable",
        ("M1", "distortion"): "not comparable",
        ("M1_amplified", "M1"): "not comparable",
        ("noise_0.1", "M1"): "agrees",
    }
    assert baseline(verdicts, tmp_path, missed=3) == {
        ("M1", "error_test"): ("2.0", "agrees"),
        ("M1", "distortion"): ("0.062", "not comparable"),
    }


def test_examples_that_are_amplified_otherwise_are_not_held_against_the_papers(verdicts, tmp_path):
    found = transfer(verdicts, tmp_path, amplified_to=0.2)
    assert found["M1_amplified", "M1"] == ("27", "not comparable")
    assert found["M1", "M1"] == ("100", "agrees")
