"""The table and the figure of networks that are trained in
different ways, from artifacts made up for them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array
from scripts import plot_methods, tabulate_methods

NETWORKS = ["sigmoid_decay", "sigmoid_pools", "relu_decay"]
BASELINES = ["sigmoid_decay", "relu_decay"]
RATES = {"sigmoid_decay": 0.018, "sigmoid_pools": 0.011, "relu_decay": 0.02}
IMAGES = 2000
PAPER = "row,column,printed,n,amplified_to,network\nsigmoid_pools,error_test,<1.2,10000,,\n"


def arguments(options):
    return [str(part) for option, values in options.items() for part in (option, *values)]


@pytest.fixture
def made(tmp_path):
    """Makes the programs' inputs for some seeds: evaluations,
    the networks of one seed after the other, the paper."""
    rng = np.random.default_rng(0)

    def make(seeds):
        originals, networks = [], []
        for seed in range(seeds):
            originals.append(tmp_path / f"evaluation{seed}.h5")
            events = {
                f"misclassified/{part}/{name}": Array(rng.random(IMAGES) < RATES[name], "events")
                for part in ("P1", "test")
                for name in NETWORKS
            }
            artifacts.write(originals[-1], events, {})
            for name in NETWORKS:
                networks.append(tmp_path / f"{name}{seed}.h5")
                history = {
                    "converged": Array(True, "8 epochs"),
                    "history/error_test": Array(rng.random(8) / 50, "errors"),
                    "history/evaluations": Array(np.arange(2.0, 18, 2), "epochs"),
                }
                settings = {"network": {"activation": name.split("_")[0]}}
                artifacts.write(networks[-1], history, {"settings": json.dumps(settings)})
        paper = tmp_path / "paper.csv"
        paper.write_text(PAPER)
        return originals, networks, paper

    return make


def tabulated(made, tmp_path, seeds, **changes):
    originals, networks, paper = made(seeds)
    settings = {"table": "some", "replicates": seeds, "comparable": True, "columns": NETWORKS}
    settings |= {"errors_on": ["P1", "test"], "baselines": BASELINES} | changes
    outputs = [tmp_path / name for name in ("t.csv", "t.md", "t.html", "t.cells.csv")]
    options = {"--originals": originals, "--networks": networks, "--paper": [paper], "--output": outputs}
    assert tabulate_methods.main(arguments(options | {"--settings": [json.dumps(settings)]})) == 0
    cells = pd.read_csv(outputs[-1]).set_index(["row", "column"])
    rates = {
        name: [100 * np.mean(events(path, f"misclassified/test/{name}")) for path in originals]
        for name in NETWORKS
    }
    return cells, rates, outputs[1].read_text(encoding="utf-8")


def events(path, name):
    with artifacts.read(path) as file:
        return file[name][()]


def test_the_table_has_means_over_the_seeds_and_welchs_differences_from_the_baselines(made, tmp_path):
    cells, rates, text = tabulated(made, tmp_path, 4)
    layout = pd.read_csv(tmp_path / "t.csv", index_col="row")
    assert list(layout.index) == NETWORKS
    assert list(layout.columns) == ["error_P1", "error_test", *(f"less_{name}" for name in BASELINES)]
    for name in NETWORKS:
        cell = cells.loc[name, "error_test"]
        assert (cell["value"], cell["std_over_seeds"]) == pytest.approx(
            (np.mean(rates[name]), np.std(rates[name], ddof=1))
        )
        for baseline in {*BASELINES} - {name}:
            cell = cells.loc[name, f"less_{baseline}"]
            wanted = stats.ttest_ind(rates[name], rates[baseline], equal_var=False)
            assert cell["value"] == pytest.approx(np.mean(rates[name]) - np.mean(rates[baseline]))
            assert (cell["ci_low"], cell["ci_high"]) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
            assert (cell["unit"], cell["n"]) == ("points", 4)
            assert f"against {baseline} p = {wanted.pvalue:.2g}" in text
    assert ("sigmoid_decay", "less_sigmoid_decay") not in cells.index
    assert cells.loc[("sigmoid_pools", "error_test"), ["paper", "verdict"]].tolist() == ["<1.2", "agrees"]
    assert f"**{np.mean(rates['relu_decay']):.2f} ± " in text  # in two digits
    assert "a mean over 4 trainings" in text


def test_of_one_training_there_are_differences_without_a_test_and_it_says_so(made, tmp_path):
    cells, rates, text = tabulated(made, tmp_path, 1)
    cell = cells.loc[("sigmoid_pools", "less_relu_decay")]
    assert cell["value"] == pytest.approx(rates["sigmoid_pools"][0] - rates["relu_decay"][0])
    assert cells["ci_low"].isna()["sigmoid_pools"].tolist() == [False, False, True, True]
    assert "there is no test" in text
    assert "Welch" not in text
    assert "nan" not in text


def test_a_table_without_baselines_has_errors_alone(made, tmp_path):
    cells, _, text = tabulated(made, tmp_path, 2, baselines=[])
    assert set(cells.index.unique("column")) == {"error_P1", "error_test"}
    assert "Less" not in text


@pytest.mark.parametrize("comparable", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_figure_has_a_panel_an_activation_and_the_papers_numbers_where_they_are_of_the_same_images(
    made, tmp_path, monkeypatch, seeds, comparable
):
    drawn = {}
    draw = plot_methods.figures.errors_by_epoch
    monkeypatch.setattr(
        plot_methods.figures,
        "errors_by_epoch",
        lambda panels, printed, title: (
            drawn.update(panels=panels, printed=printed, title=title) or draw(panels, printed, title)
        ),
    )
    _, networks, paper = made(seeds)
    settings = {"table": "some", "replicates": seeds, "comparable": comparable, "networks": NETWORKS}
    options = {"--networks": networks, "--paper": [paper], "--output": [tmp_path / "t.png"]}
    assert plot_methods.main(arguments(options | {"--settings": [json.dumps(settings)]})) == 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert {panel: list(found) for panel, found in drawn["panels"].items()} == {
        "sigmoid": ["sigmoid_decay", "sigmoid_pools"],
        "relu": ["relu_decay"],
    }
    for place, name in enumerate(NETWORKS):
        own = [events(path, "history/error_test") for path in networks[place :: len(NETWORKS)]]
        epochs, errors = drawn["panels"][name.split("_")[0]][name]
        assert np.array_equal(errors, own)
        assert epochs.tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    assert drawn["printed"] == ({"sigmoid_pools": "<1.2"} if comparable else {})
    assert ("one training" if seeds == 1 else "3 trainings") in drawn["title"]
