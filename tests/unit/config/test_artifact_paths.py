"""Where artifacts lie: in a variant's folder only if something that they depend on differs there."""

import pytest
import yaml
from conftest import ROOT

from blindspots.config.artifact_paths import ArtifactPaths
from blindspots.config.loading import validated, variants
from blindspots.config.merging import merged

RAW = merged(
    yaml.safe_load((ROOT / "config/config.yaml").read_text()),
    {"replicates": 2, "attack": {"images_per_job": 4000}},
)
PATHS = ArtifactPaths({"": validated(RAW)} | {f"{name}/": one for name, one in variants(RAW).items()})
TABLES = PATHS.variants[""].tables


@pytest.mark.parametrize(
    ("variant", "network", "folder"),
    [
        ("", "M1", ""),
        ("seeds2/", "M1", "seeds2/"),
        ("seeds2/", "EfficientNetLite0", ""),  # it comes trained
        ("ablations/decay_plain/", "M1", "ablations/decay_plain/"),
        ("ablations/target_nearest/", "M1", ""),  # no training depends on targets
        ("ablations/full_batch/", "M1", "ablations/full_batch/"),
        ("ablations/full_batch/", "Conv", ""),  # it is trained in minibatches
    ],
)
def test_weights_are_made_again_only_where_training_differs(variant, network, folder):
    assert PATHS.network(variant, network) == f"results/networks/{folder}{network}.h5"


@pytest.mark.parametrize(
    ("variant", "folder"),
    [
        ("", ""),
        ("seeds2/", "seeds2/"),
        ("ablations/as_configured/", "ablations/as_configured/"),  # of fewer images
        ("ablations/clipped/", "ablations/as_configured/"),  # clips noise and amplified images alone
        ("ablations/target_nearest/", "ablations/target_nearest/"),
        ("ablations/sample_256/", "ablations/sample_256/"),
    ],
)
def test_examples_are_made_again_where_the_attack_or_the_weights_differ(variant, folder):
    assert PATHS.examples("refined", "test", variant, "M1") == f"results/refined/test/{folder}M1.h5"


def test_noise_depends_on_no_network_and_on_its_own_section():
    assert PATHS.noise("test", "seeds2/", 0.1) == "results/noise/test/0.1.h5"
    clipped = PATHS.noise("test", "ablations/clipped/", 0.1)
    assert clipped == "results/noise/test/ablations/clipped/0.1.h5"


def test_shards_are_as_many_as_there_are_jobs():
    shards = PATHS.shards("results/adversarial/test/M1.h5", "", "test")
    assert shards == [f"results/adversarial/test/M1/{number}-of-3.h5" for number in (1, 2, 3)]


def test_a_table_is_taken_over_all_seeds_of_networks_that_are_trained():
    assert PATHS.replicates("", TABLES["table4"]) == ["", "seeds2/"]
    assert PATHS.replicates("seeds2/", TABLES["table4"]) == ["seeds2/"]
    assert PATHS.replicates("", TABLES["figure5"]) == [""]
    assert PATHS.replicates("", TABLES["adversarial_training"]) == ["", *(f"seeds{k}/" for k in (2, 3, 4, 5))]


def test_each_kind_of_table_says_what_its_rule_reads():
    found = {name: table.inputs(PATHS, "", name) for name, table in TABLES.items()}
    assert {table.kind: tuple(found[name]) for name, table in TABLES.items()} == {
        "baseline": ("originals", "adversarial", "refined", "exact", "networks"),
        "transfer": ("evaluation", "distorted", "refined"),
        "spectral": ("spectra",),
        "methods": ("originals", "networks"),
    }
    assert found["table1"]["exact"] == [
        f"results/exact/train/{folder}softmax{k}.h5" for folder in ("", "seeds2/") for k in (1, 2, 3)
    ]
    assert found["table3"]["originals"] == [
        "results/evaluation/table3.h5",
        "results/evaluation/seeds2/table3.h5",
    ]
    assert found["table5"]["spectra"] == ["results/spectra/refined/pictures/EfficientNetLite0.h5"]
    assert (
        "results/amplified/adversarial/test/seeds2/M2_0.1.h5" not in found["table4"]["distorted"]
    )  # not measured
    assert "results/noise/train/0.3.h5" in found["table2"]["distorted"]  # with the column of distortions


def test_a_table_has_the_shards_of_its_rows():
    rows = TABLES["table4"].shards(PATHS, "")
    assert list(rows) == [row.name for row in TABLES["table4"].rows()]
    assert rows["M1_amplified"][0] == "results/amplified/adversarial/test/M1_0.1/1-of-3.h5"
    assert rows["noise_0.06"][-1] == "results/noise/test/0.06/3-of-3.h5"
    assert set(TABLES["table3"].shards(PATHS, "")) == {
        f"results/{kind}/test/{name}.h5"
        for kind in ("adversarial", "refined")
        for name in ("M1", "M1_prime", "M2")
    }
    assert TABLES["table5"].shards(PATHS, "") == TABLES["adversarial_training"].shards(PATHS, "") == {}
