"""Tables: every cell with its sample, interval, paper value, verdict and array."""

import csv

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blindspots.report import pages, paper, tables
from blindspots.report.paper import Number
from blindspots.report.tables import CellArray, Table
from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array
from scripts import tabulate_baseline

COLUMNS = "table,row,column,value,unit,n,ci_low,ci_high,std_over_seeds,paper,paper_n,verdict,artifact,array"
COLUMNS += ",row_label,column_label"
PRINTED = {("M2", "error"): Number("26.2", 256, None), ("M2", "distortion"): Number("0.062", 256, None)}


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "wrong": Array(np.arange(200) < 52, "26 %"),
        "all wrong": Array(np.ones(200, dtype=bool), "100 %"),
        "size": Array(np.append(rng.normal(0.062, 0.01, 99), np.nan), "distortions, one not found"),
    }
    artifacts.write(tmp_path / "source.h5", arrays, {})
    return tmp_path / "source.h5"


def cells_of(source, printed=PRINTED, comparable=True, rows=("M2", "M1")):
    table = Table("table9", printed, comparable)
    cells = []
    for row in rows:
        cells.append(table.rate(row, "error", [CellArray(source, "wrong" if row == "M2" else "all wrong")]))
        cells.append(table.mean(row, "distortion", "rms", [CellArray(source, "size")]))
    return cells


def written(tmp_path, cells, **labels):
    outputs = [tmp_path / f"t{ending}" for ending in (".csv", ".md", ".html", "_cells.csv")]
    options = {"row_labels": {}, "column_labels": {}, "notes": ["a note"]} | labels
    pages.write(outputs, "A title", cells, **options)
    return outputs


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@given(name=st.from_regex(r"[A-Za-z][A-Za-z0-9_]*", fullmatch=True))
@example(name="NA")
@example(name="nan")
@example(name="null")
@example(name="None")
@example(name="True")
@example(name="inf")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_row_is_called_it_is_read_back_so(tmp_path, source, name):
    cells = cells_of(source, {}, rows=(name,))
    path = written(tmp_path, cells)[3]
    frame = tables.read(path)
    assert frame["row"].tolist() == frame["row_label"].tolist() == [name] * len(cells)
    assert frame["paper"].isna().all()
    assert frame["value"].tolist() == pytest.approx([cell.value for cell in cells], rel=1e-9)


def test_cells_are_written_with_exactly_these_columns_and_read_back(tmp_path, source):
    cells = cells_of(source)
    path = written(tmp_path, cells, row_labels={"M2": "the second"})[3]
    assert path.read_text().splitlines()[0] == COLUMNS
    assert {(line["row"], line["row_label"]) for line in lines_of(path)} == {
        ("M1", "M1"),
        ("M2", "the second"),
    }
    for line, cell in zip(lines_of(path), cells, strict=True):
        for key in ("table", "row", "column", "unit", "verdict", "artifact", "array"):
            assert line[key] == getattr(cell, key)
        for key in ("value", "ci_low", "ci_high"):
            assert float(line[key]) == pytest.approx(getattr(cell, key), rel=1e-9)
        assert int(line["n"]) == cell.n
        assert line["paper"] == (cell.paper or "")
        assert line["paper_n"] == ("" if cell.paper_n is None else str(cell.paper_n))


def test_the_papers_digits_are_kept_as_printed(tmp_path, source):
    cells = cells_of(source, {("M2", "error"): Number("26.20", 256, None)})
    assert lines_of(written(tmp_path, cells)[3])[0]["paper"] == "26.20"


def test_a_rate_is_in_percent_with_its_interval(source):
    cell = cells_of(source)[0]
    assert (cell.value, cell.unit, cell.n) == (26.0, "%", 200)
    # Wilson's interval for 52 of 200.
    assert (cell.ci_low, cell.ci_high) == (pytest.approx(20.42, abs=0.01), pytest.approx(32.49, abs=0.01))


def test_a_mean_leaves_out_what_is_nan_and_counts_the_rest(source):
    cell = cells_of(source)[1]
    with artifacts.read(source) as file:
        values = file["size"][()]
    assert cell.n == 99
    assert cell.value == pytest.approx(values[:99].mean())
    assert cell.ci_low < cell.value < cell.ci_high


def test_every_cell_names_the_dataset_that_it_can_be_recomputed_from(source):
    for cell in cells_of(source):
        with artifacts.read(cell.artifact) as file:
            values = file[cell.array][()]
        assert cell.value == pytest.approx(100 * values.mean() if cell.unit == "%" else np.nanmean(values))


def test_verdicts_stand_only_where_the_paper_has_a_number(source):
    assert [cell.verdict for cell in cells_of(source)] == [
        "agrees",
        "agrees",
        "not comparable",
        "not comparable",
    ]
    other = {("M1", "error"): Number("26.2", 256, None)}
    assert [cell.verdict for cell in cells_of(source, other)] == ["not comparable"] * 2 + [
        "differs",
        "not comparable",
    ]


def test_a_printed_zero_is_a_number_of_the_paper(source):
    assert cells_of(source, {("M2", "error"): Number("0", 30000, None)})[0].verdict == "differs"


def test_without_comparison_no_verdict_is_given_but_the_papers_number_stays(source):
    cells = cells_of(source, comparable=False)
    assert {cell.verdict for cell in cells} == {"not comparable"}
    assert cells[0].paper == "26.2"


def test_a_number_of_the_papers_own_network_is_shown_beside_ours_and_not_judged(source):
    cell = cells_of(source, {("M2", "error"): Number("26.2", 256, None, "AlexNet")})[0]
    assert (cell.paper, cell.verdict) == ("26.2", "not comparable")


def test_without_any_number_of_the_paper_the_columns_are_the_same(tmp_path, source):
    path = written(tmp_path, cells_of(source, {}))[3]
    assert path.read_text().splitlines()[0] == COLUMNS
    assert all(line["paper"] == line["paper_n"] == "" for line in lines_of(path))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_mean_of_nothing_agrees_with_nothing(tmp_path):
    artifacts.write(tmp_path / "none.h5", {"size": Array(np.full(3, np.nan), "nothing found")}, {})
    cell = Table("t", PRINTED, True).mean(
        "M2", "distortion", "rms", [CellArray(tmp_path / "none.h5", "size")]
    )
    assert cell.n == 0
    assert cell.verdict == "not comparable"


def test_replicates_are_averaged_with_their_std_and_every_source_named(tmp_path, source):
    cell = Table("t", PRINTED, True).rate(
        "M2", "error", [CellArray(source, "wrong"), CellArray(source, "all wrong")]
    )
    assert (cell.value, cell.n) == (63.0, 200)
    assert cell.std_over_seeds == pytest.approx(np.std([26, 100], ddof=1))
    assert cell.artifact.split(";") == [str(source)] * 2
    assert cell.array.split(";") == ["wrong", "all wrong"]
    _, text, _, cells = written(tmp_path, [cell])
    assert "**63.00 ± 52.33 %**" in text.read_text(encoding="utf-8")
    assert float(lines_of(cells)[0]["std_over_seeds"]) == pytest.approx(cell.std_over_seeds)


def test_a_difference_is_in_points_between_two_networks_over_their_replicates(tmp_path):
    counts = {"a": [10, 14, 12], "b": [20, 25, 21]}
    events = {f"{name}{k}": np.arange(200) < count for name in counts for k, count in enumerate(counts[name])}
    artifacts.write(tmp_path / "s.h5", {name: Array(values, "some") for name, values in events.items()}, {})
    ones, others = ([CellArray(tmp_path / "s.h5", f"{name}{k}") for k in range(3)] for name in counts)
    cell = Table("t", PRINTED, True).difference("M2", "less_b", ones, others)
    assert (cell.value, cell.unit, cell.n) == (pytest.approx(6 - 11), "points", 3)
    assert cell.ci_low < -5 < cell.ci_high < 0
    assert cell.array == "a0;a1;a2;b0;b1;b2"
    _, text, _, _ = written(tmp_path, [cell])
    assert f"**-5.00** [{cell.ci_low:+.2f}, {cell.ci_high:+.2f}] |" in text.read_text(encoding="utf-8")


def test_a_bound_that_the_paper_prints_is_shown_as_one(tmp_path, source):
    cells = cells_of(source, {("M2", "error"): Number("<1.2", 10_000, None)})
    assert cells[0].verdict == "differs"
    _, text, page, _ = written(tmp_path, cells)
    assert "p <1.2 % ✗" in text.read_text(encoding="utf-8")
    assert "paper &lt;1.2 % ✗" in page.read_text(encoding="utf-8")


def test_artifacts_are_sorted_by_name_across_replicates():
    assert tables.by_replicate(["a", "b", "a2", "b2"], ["A", "B"]) == {"A": ["a", "a2"], "B": ["b", "b2"]}


def test_the_layout_keeps_the_order_of_the_cells(tmp_path, source):
    path = written(tmp_path, cells_of(source, rows=("M2", "M10", "M1")))[0]
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["row", "error", "distortion"]
    assert [row[0] for row in rows[1:]] == ["M2", "M10", "M1"]
    assert rows[1][1] == "26.00"
    assert rows[2][1] == "100.00"
    assert rows[1][2].startswith("0.06")


def test_the_readable_files_have_title_values_verdicts_labels_and_notes(tmp_path, source):
    labels = {"row_labels": {"M1": "The first"}, "column_labels": {"error": "Error on P1"}}
    _, text, page, _ = written(tmp_path, cells_of(source), **labels)
    described = text.read_text(encoding="utf-8")
    assert described.startswith("# A title\n")
    assert "| Error on P1 | distortion |" in described
    assert "| M2 | **26.0 %** [20.4, 32.5] · p 26.2 % ✓ |" in described
    assert "| The first | **100.0 %** " in described
    assert "- a note" in described
    html = page.read_text(encoding="utf-8")
    assert "<title>A title</title>" in html
    assert html.count("<tr>") == 3
    assert "<strong>26.0 %</strong> [20.4, 32.5]<br>paper 26.2 % ✓" in html


def test_a_verdict_that_differs_is_marked(tmp_path, source):
    cells = cells_of(source, {("M1", "error"): Number("26.2", 256, None)})
    assert "**100.0 %** [98.1, 100.0] · p 26.2 % ✗" in written(tmp_path, cells)[1].read_text(encoding="utf-8")


def test_the_papers_numbers_are_read_as_printed(tmp_path):
    (tmp_path / "t.csv").write_text(
        "row,column,printed,n,amplified_to,network\n"
        "M1,error,2.40,30000,,\nM1,distortion,100,256,0.1,AlexNet\nM1,upper,5e-5,,,\n"
    )
    wanted = {
        ("M1", "error"): Number("2.40", 30000, None),
        ("M1", "distortion"): Number("100", 256, 0.1, "AlexNet"),
    }
    wanted["M1", "upper"] = Number("5e-5", None, None)
    assert paper.read_paper([tmp_path / "t.csv"]) == wanted
    assert paper.read_paper([]) == {}


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (
            [2, 2, 0],
            "1 were misclassified before any distortion and got a target "
            "that is neither their label nor the network's",
        ),
        (
            [1, 0, 0],
            "1 were misclassified before any distortion and got their label as target, "
            "the other one of two classes",
        ),
    ],
)
def test_a_note_says_what_misclassified_images_were_led_to(tmp_path, targets, words):
    status = np.zeros(3, np.uint8).astype(h5py.enum_dtype({"converged": 0}, basetype="u1"))
    arrays = {
        "predicted": [0, 1, 1],
        "labels": [0, 0, 1],
        "target": targets,
        "success": [True] * 3,
        "status": status,
    }
    artifacts.write(tmp_path / "a.h5", {name: Array(values, "some") for name, values in arrays.items()}, {})
    assert words in tabulate_baseline._outcome(tmp_path / "a.h5", "random")
