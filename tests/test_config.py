"""The configuration: the project's own is right, and each mistake is told in one line that names its key."""

import copy
from pathlib import Path

import pytest
import yaml

from blindspots.config import ConfigError, validated

FOLDER = Path(__file__).parents[1] / "config"
DEFAULT = yaml.safe_load((FOLDER / "config.yaml").read_text())


def merged(base, overlay):
    """As Snakemake merges one --configfile over another: mappings key by key, all else replaced."""
    both = {key: merged(base[key], overlay[key]) for key in base.keys() & overlay.keys() if isinstance(overlay[key], dict)}
    return {**base, **overlay, **both}


def changed(*changes):
    """The default configuration with `a.b.c` set to a value, or left out for the value `...`."""
    raw = copy.deepcopy(DEFAULT)
    for key, value in changes:
        *parents, last = key.split(".")
        place = raw
        for name in parents:
            place = place[int(name) if isinstance(place, list) else name]
        if value is ...:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return raw


def refusal(raw):
    with pytest.raises(ConfigError) as error:
        validated(raw)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_default_configuration_is_right():
    config = validated(DEFAULT)
    assert config.networks["M1"].weight_decay == [1e-5, 1e-5, 1e-6]
    assert config.tables["table4"].blocks[0].amplified_to is None


def test_every_configuration_of_the_project_is_right_over_the_default():
    overlays = [path for path in FOLDER.glob("*.yaml") if path.name != "config.yaml"]
    assert FOLDER / "small.yaml" in overlays
    for path in overlays:
        validated(merged(DEFAULT, yaml.safe_load(path.read_text())))


def test_the_small_configuration_keeps_what_it_does_not_name():
    config = validated(merged(DEFAULT, yaml.safe_load((FOLDER / "small.yaml").read_text())))
    assert config.networks["M1"].units == [20, 20, 10]
    assert config.networks["M1"].trained_on == "P1"
    assert config.splits.parts["P2"] == (300, 600)
    assert not config.compare_with_paper


def test_the_default_configuration_is_not_changed_by_being_checked():
    before = copy.deepcopy(DEFAULT)
    validated(DEFAULT)
    assert before == DEFAULT


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        # Unknown and missing keys
        ("atack", {}, "unknown key"),
        ("attack.nrom", "l2", "unknown key"),
        ("networks.M1.dropout", 0.5, "unknown key"),
        ("data.files.train_images.md5", "0", "unknown key"),
        ("tables.table4.blocks.0.clip", True, "unknown key"),
        ("tables.table3.blocks", [], "unknown key"),
        ("attack.lbfgs.norm", ..., "equired"),
        ("networks.M1.seed", ..., "equired"),
        ("training", ..., "equired"),
        # Wrong types and values
        ("training.max_iterations", "many", "'many'"),
        ("training.max_iterations", 0, "got 0"),
        ("training.threads", 1.5, "got 1.5"),
        ("training.device", "gpu", "got 'gpu'"),
        ("training.decay_convention", "full", "got 'full'"),
        ("training.gradient_tolerance", float("inf"), "got inf"),
        ("attack.lbfgs.norm", "linf", "got 'linf'"),
        ("attack.lbfgs.c_growth", 1.0, "got 1.0"),
        ("attack.margin", -1e-4, "got -0.0001"),
        ("attack.sqp.exploration", -1, "got -1"),
        ("attack.sample", 0, "got 0"),
        ("attack.sample", "some", "got 'some'"),
        ("attack.target", "third", "got 'third'"),
        ("noise.seed", -1, "got -1"),
        ("noise.clip", "perhaps", "got 'perhaps'"),
        ("compare_with_paper", None, "got None"),
        ("networks.M1.kind", "residual", "got 'residual'"),
        ("networks.M1.activation", "step", "got 'step'"),
        ("networks.M1.units", [], "got []"),
        ("networks.M1.units.0", 0, "got 0"),
        ("networks.M1.weight_decay.1", -1e-5, "got -1e-05"),
        ("tables.table4.blocks.1.amplified_to", -0.1, "got -0.1"),
        ("tables.table4.blocks.1.amplified_to", 0, "got 0"),
        ("tables.table4.blocks.0.noise.0", -0.06, "got -0.06"),
        ("tables.table4.distorted", "P1", "got 'P1'"),
        ("tables.table4.kind", "other", "other"),
        ("tables.table4.networks", [], "got []"),
        ("data.files.test_labels.sha256", "abc", "got 'abc'"),
        ("data.sources.1.url", "ftp://somewhere", "got 'ftp://somewhere'"),
        ("data.sources", [], "got []"),
        ("data.image_shape", [28], "equired"),
        # What does not fit together
        ("networks.M1.trained_on", "P3", "'P3' is not known"),
        ("networks.M1.trained_on", "test", "'test' is not known"),
        ("networks.M1.weight_decay", [1e-5], "1 values for 3 trained layers"),
        ("tables.table3.networks", ["M1", "M1_prime", "M2", "M3"], "'M3' is not known"),
        ("tables.table4.networks", ["M9"], "'M9' is not known"),
        ("tables.table3.errors_on", ["P1", "P7"], "'P7' is not known"),
        ("networks.M1.units", [100, 100, 9], "9 units in the last layer, for 10 classes"),
        ("splits.parts.P2", [29999, 60000], "overlaps"),
        ("splits.parts.P2", [30000, 60001], "60000 images"),
        ("splits.parts.P2", [40000, 30000], "no range"),
        ("attack.given_targets", "targets.txt", "given_targets names a file exactly when target is given"),
    ],
)
def test_one_mistake_is_one_line_that_names_its_key_and_why(key, value, words):
    message = refusal(changed((key, value)))
    named = message.split(": ")
    assert any(part and (key.startswith(part) or part.startswith(key)) for part in named), message
    # The line leads to the entry itself or to the section that it stands in, never further up than that.
    section = key.rpartition(".")[0]
    last = next(name for name in reversed(key.split(".")) if not name.isdigit())
    assert section in message or key in message
    assert last in message
    assert words in message


def test_given_targets_need_a_file():
    message = refusal(changed(("attack.target", "given")))
    assert message == "attack: given_targets names a file exactly when target is given"


def test_given_targets_with_a_file_are_right():
    assert validated(changed(("attack.target", "given"), ("attack.given_targets", "targets.txt"))).attack.target == "given"


def test_all_mistakes_are_told_at_once_in_one_line():
    message = refusal(changed(("noise.seed", -1), ("attack.nrom", 1), ("training.threads", 0)))
    assert all(key in message for key in ("noise.seed", "attack.nrom", "training.threads"))


def test_a_missing_key_that_is_named_like_a_kind_of_source_is_named():
    raw = changed()
    del raw["data"]["sources"][3]["folder"]
    assert "data.sources.3.folder" in refusal(raw)


@pytest.mark.parametrize("name", ["baseline", "transfer"])
def test_a_table_that_is_named_like_a_kind_of_table_is_named(name):
    table = copy.deepcopy(DEFAULT["tables"]["table3"]) | {"colour": "red"}
    assert f"tables.{name}.colour" in refusal(changed((f"tables.{name}", table)))


@pytest.mark.parametrize("name", ["a/b", "1st", "M 1", "", "M.1"])
def test_names_that_are_no_file_names_are_refused(name):
    raw = copy.deepcopy(DEFAULT)
    raw["networks"][name] = copy.deepcopy(raw["networks"]["M1"])
    raw["tables"]["table3"]["networks"].append(name)
    assert "networks" in refusal(raw)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_may_not_have_the_name_of_a_whole_set(name):
    # `train` and `test` mean all of the images wherever a split is named, so such a part would be passed over.
    raw = changed(("splits.parts", {"P1": [0, 30000], "P2": [30000, 50000], name: [50000, 60000]}))
    assert "splits.parts" in refusal(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [("tables.table3.networks", ["M1", "M1_prime", "M2", "M1"]), ("tables.table3.errors_on", ["P1", "P1"])],
)
def test_a_row_or_column_may_not_stand_twice_in_a_table(key, value):
    assert key in refusal(changed((key, value)))


def test_the_same_noise_may_not_stand_twice_in_a_table():
    assert "tables.table4" in refusal(changed(("tables.table4.blocks.1.noise", [0.06])))


def test_a_configuration_that_is_no_mapping_of_sections_is_told():
    assert "networks" in refusal(changed(("networks", ["M1"])))
    assert refusal({})


def test_checked_configurations_cannot_be_changed():
    config = validated(DEFAULT)
    with pytest.raises(ValueError, match="frozen"):
        config.noise.seed = 5
