"""The paper's claims, judged from cells."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blindspots.report import claims
from blindspots.report.claims import NOT_TESTED, PARTLY, REFUTED, SUPPORTED, Cells, Rate, findings, higher

N = 1000
TABLE2 = claims.PAPERS_NETWORKS
TABLE4 = ("M1", "M1_prime", "M2")
PLACES = ("hidden", "input")


def cells(**changes):
    """Cells that support every claim, but for those that are changed: table__row__column=value."""
    values = {}
    for row, column in itertools.product(TABLE2, TABLE2):
        resilient = column == "AE400_10"
        values["table2", row, column] = 100.0 if row == column else 8.0 if resilient else 20.0
    for name in TABLE2:
        values["table2", "noise_0.1", name] = 2.0
        values["table2", name, "distortion"] = 0.14 if name == "softmax3" else 0.06
    for row, column in itertools.product(TABLE4, TABLE4):
        within = {row, column} == {"M1", "M1_prime"}
        values["table4", row, column] = 100.0 if row == column else 26.0 if within else 8.0
        values["table4", f"{row}_amplified", column] = 100.0 if row == column else 45.0
    for name in TABLE4:
        values["table4", "noise_0.06", name] = 2.2
        values["table4", "noise_0.1", name] = 2.6
        values["table3", name, "error_test"] = 2.1
        values["table3", name, "error_P1"] = 2.4 if name == "M2" else 0.0
        values["table3", name, "error_P2"] = 0.0 if name == "M2" else 2.4
        values["table3", name, "distortion"] = 0.0715
    for name in ("softmax1", "N200_200_10"):
        values["figure7", name, name] = 100.0
        values["figure7", "noise_1.0", name] = 49.0
    for measure in ("purity", "pixels"):
        values["units", "mnist_trained_units_against_directions", measure] = 0.5
    for name in ("EfficientNetLite0", "EfficientNetLite1"):
        values["figure5", name, name] = 100.0
        values["figure5", name, "distortion"] = 0.003
    for table, row in (("table5", "AlexNet_conv_1"), ("table5", "AlexNet_fc_1"), ("table5_mnist", "M1_fc_1")):
        values[table, row, "upper"] = 0.5 if row == "AlexNet_fc_1" else 2.0
        values[table, row, "instability"] = 0.4
    errors = {"sigmoid_pools": 1.4, "relu_pools": 1.1, "sigmoid_decay": 1.65, "sigmoid_dropout": 1.32}
    errors |= {"relu_decay": 1.65, "relu_dropout": 1.64}
    errors |= {
        f"{units}_{place}": 1.2 if place == "hidden" else 1.4
        for units in ("sigmoid", "relu")
        for place in PLACES
    }
    for name, error in errors.items():
        values["adversarial_training", name, "error_test"] = error
    for key, value in changes.items():
        values[tuple(key.split("__"))] = value
    frame = pd.DataFrame(
        [(*key, value, N) for key, value in values.items()], columns=["table", "row", "column", "value", "n"]
    )
    seeds = {"std_over_seeds": 0.03, "artifact": "1;2;3;4;5"}
    return frame.assign(ci_low=frame["value"] - 0.05, ci_high=frame["value"] + 0.05, **seeds)


def verdict(claim, frame):
    return claim(Cells(frame)).verdict


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_every_claim_is_supported_by_cells_as_it_says(claim):
    assert verdict(claim, cells()) == SUPPORTED


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_every_claim_is_stated_with_the_place_in_the_paper(claim):
    assert any(place in claim.__doc__ for place in ("(3)", "(4.1", "(4.2", "(4.3", "(Figure 7"))


def of(table, rows, columns, value):
    return {f"{table}__{row}__{column}": value for row in rows for column in columns if row != column}


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        (
            claims.for_every_image,
            {
                f"{table}__{name}__{name}": 30.0
                for table, names in (("table2", TABLE2), ("table4", TABLE4))
                for name in names
            },
        ),
        (
            claims.for_photographs,
            {f"figure5__EfficientNetLite{k}__EfficientNetLite{k}": 30.0 for k in (0, 1)},
        ),
        (claims.without_the_extreme, {"table2__softmax3__softmax3": 40.0}),
        (claims.smaller_than_noise, {"table2__softmax2__distortion": 0.1}),
        (claims.across_models, of("table2", TABLE2, TABLE2, 2.0)),
        (claims.across_training_sets, of("table4", TABLE4, TABLE4, 2.2)),
        (claims.less_across_training_sets, of("table4", TABLE4, TABLE4, 26.0)),
        (claims.amplified_stay_hard, {f"table4__{a}_amplified__{b}": 2.6 for a in TABLE4 for b in TABLE4}),
        (claims.magnified, {f"table3__{name}__distortion": 0.06 for name in TABLE4}),
        (claims.noise_is_harmless, {f"table4__noise_0.06__{name}": 30.0 for name in TABLE4}),
        (claims.most_resilient, of("table2", TABLE2, ["AE400_10"], 20.0)),
        (claims.not_immune, of("table2", TABLE2, ["AE400_10"], 2.0)),
        (
            claims.half_under_noise,
            {"figure7__noise_1.0__softmax1": 85.0, "figure7__noise_1.0__N200_200_10": 5.0},
        ),
        (claims.half_under_noise, {"figure7__softmax1__softmax1": 99.0}),
        (claims.trained_below, {"adversarial_training__relu_pools__error_test": 1.21}),
        (claims.dropout_helps, {"adversarial_training__sigmoid_dropout__error_test": 1.64}),
        (
            claims.higher_layers,
            {f"adversarial_training__{units}_hidden__error_test": 1.4 for units in ("sigmoid", "relu")},
        ),
    ],
)
def test_every_claim_is_not_supported_by_cells_that_say_otherwise(claim, changes):
    assert verdict(claim, cells(**changes)) == REFUTED


def test_a_claim_that_holds_for_most_pairs_is_supported_in_part():
    assert verdict(claims.across_models, cells(table2__softmax1__softmax2=2.0)) == PARTLY


@pytest.mark.parametrize(
    ("claim", "how"), [(claims.trained_below, "pools"), (claims.dropout_helps, "dropout")]
)
def test_either_kind_of_unit_may_be_that_of_the_paper(claim, how):
    names = [f"adversarial_training__{units}_{how}__error_test" for units in ("sigmoid", "relu")]
    frame = cells()
    there = {name: frame.loc[frame["row"] == name.split("__")[1], "value"].item() for name in names}
    assert verdict(claim, cells(**dict(zip(names, reversed(there.values()), strict=True)))) == SUPPORTED


def test_what_training_again_may_undo_is_supported_in_part():
    assert verdict(claims.trained_below, cells(adversarial_training__relu_pools__error_test=1.17)) == PARTLY
    assert (
        verdict(claims.dropout_helps, cells(adversarial_training__sigmoid_dropout__error_test=1.1)) == PARTLY
    )
    assert (
        verdict(claims.dropout_helps, cells(adversarial_training__sigmoid_decay__error_test=1.85)) == PARTLY
    )
    assert verdict(claims.higher_layers, cells(adversarial_training__relu_hidden__error_test=1.38)) == REFUTED


@pytest.mark.parametrize("claim", [claims.trained_below, claims.dropout_helps, claims.higher_layers])
def test_errors_of_one_training_or_of_missing_networks_are_not_tested(claim):
    frame = cells()
    once = findings(frame.assign(artifact="1", std_over_seeds=np.nan))[claim.__doc__]
    assert once.verdict == NOT_TESTED
    assert "has one training of" in once.test
    others = frame[~frame["row"].str.contains("_pools|_dropout|_input")]
    assert findings(others)[claim.__doc__].verdict == NOT_TESTED


def test_trainings_are_compared_by_welchs_test_from_their_means_and_stds():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1.2, 0.1, 5), rng.normal(1.4, 0.2, 4)
    found = claims.Trainings(one.mean(), one.std(ddof=1), 5).below(
        claims.Trainings(other.mean(), other.std(ddof=1), 4)
    )
    assert found == pytest.approx(stats.ttest_ind(one, other, equal_var=False, alternative="less").pvalue)
    alone = claims.Trainings(one.mean(), one.std(ddof=1), 5).below(1.3)
    assert alone == pytest.approx(stats.ttest_1samp(one, 1.3, alternative="less").pvalue)


def test_images_without_an_example_count_against_the_first_claim():
    frame = cells()
    own = (frame["table"] == "table2") & (frame["row"] == "softmax1") & (frame["column"] == "softmax1")
    frame.loc[own, "n"] = N - 3  # a rate counts only the images for which there was an example
    finding = claims.for_every_image(Cells(frame))
    assert finding.verdict == PARTLY
    assert "for 8997 of 9000 images" in finding.numbers
    # Of the 2,000 images of both tables at most 3 have none; Clopper
    # and Pearson's upper limit of 3 of 2000 at 1 % is 0.5 %.
    bound = float(stats.binomtest(3, 2000).proportion_ci(0.98, method="exact").high)
    assert f"fewer than {100 * bound:.3f} % of images" in finding.test


def test_rates_of_the_same_images_are_not_counted_as_those_of_several_sets():
    # 28 % of the 1,000 images are surely more than 20 %, 23 % are
    # not, and no more so as five rows of them say it.
    others = {
        f"table2__{row}__{column}": 23.0 for row in TABLE2 for column in TABLE2 if row != column != "AE400_10"
    }
    resilient = {f"table2__{row}__AE400_10": 20.0 for row in TABLE2 if row != "AE400_10"}
    assert verdict(claims.most_resilient, cells(**(others | resilient))) == REFUTED
    assert verdict(claims.most_resilient, cells(**({name: 28.0 for name in others} | resilient))) == SUPPORTED


def test_a_claim_without_its_cells_is_not_tested_and_says_which_is_missing():
    frame = cells()
    found = findings(frame[frame["table"] != "figure7"])
    assert found[claims.half_under_noise.__doc__].verdict == NOT_TESTED
    assert "figure7" in found[claims.half_under_noise.__doc__].test
    others = [
        finding.verdict
        for statement, finding in found.items()
        if statement != claims.half_under_noise.__doc__
    ]
    assert set(others) == {SUPPORTED}


def test_higher_is_fishers_one_sided_test():
    # Of 8 and 8 with 4 events in all: 4 against 0 has probability C(8,4)/C(16,4) = 70/1820.
    assert higher(Rate(50.0, 8), Rate(0.0, 8)) == pytest.approx(70 / 1820)
    assert higher(Rate(0.0, 8), Rate(50.0, 8)) == pytest.approx(1)


def test_many_pairs_are_each_tested_at_a_stricter_level():
    # With one pair p = 0.0092 is enough, with 30 it is not.
    one, other = Rate(1.0, 1000), Rate(0.1, 1000)
    assert claims.SIGNIFICANCE / 30 < higher(one, other) < claims.SIGNIFICANCE
    assert claims._each_higher([(one, other)]) == (1, 1)
    assert claims._each_higher([(one, other)] * 30) == (0, 30)


def test_units_that_differ_from_directions_are_told():
    finding = claims.no_distinction(Cells(cells(units__mnist_trained_units_against_directions__purity=0.9)))
    assert finding.verdict == REFUTED
    assert "mnist purity 0.90" in finding.numbers


def test_so_few_units_that_nothing_can_be_told_of_them_are_not_taken_for_alike():
    frame = cells().assign(ci_low=0.02, ci_high=0.98)
    assert verdict(claims.no_distinction, frame) == REFUTED


@pytest.mark.parametrize("networks", [("M1", "M1_prime"), ("M1", "M2"), ("M1",)])
def test_what_other_networks_leave_untested_is_told(networks):
    frame = cells()
    others = set(TABLE4) - set(networks)
    frame = frame[
        ~((frame["table"] == "table4") & (frame["row"].isin(others) | frame["column"].isin(others)))
    ]
    untested = findings(frame)[claims.less_across_training_sets.__doc__]
    assert untested.verdict == NOT_TESTED
    assert "no networks to compare" in untested.test


def test_the_first_layer_of_a_network_with_convolutions_is_one():
    finding = claims.from_the_first_layer(Cells(cells()))
    assert "AlexNet 2, M1 2" in finding.numbers
    assert verdict(claims.from_the_first_layer, cells(table5__AlexNet_conv_1__upper=0.9)) == REFUTED
