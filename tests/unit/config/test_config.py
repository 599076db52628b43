"""The configuration: the project's own is right, and each mistake is told in one line that names its key."""

import copy
import json

import pytest
import torch
import yaml
from conftest import ROOT

from blindspots.config import reference
from blindspots.config.errors import ConfigError
from blindspots.config.loading import MAY_BE_NULL, check_written, validated, variants
from blindspots.config.networks import Pretrained, Trained
from blindspots.config.types import PICTURES
from blindspots.networks import architectures

FOLDER = ROOT / "config"
DEFAULT = yaml.safe_load((FOLDER / "config.yaml").read_text())
FILES = DEFAULT["data"]["files"]


def merged(base, overlay):
    """As Snakemake merges one --configfile over another: mappings key by key, all else replaced."""
    both = {
        key: merged(base[key], overlay[key])
        for key in base.keys() & overlay.keys()
        if isinstance(overlay[key], dict)
    }
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


def trained_networks(config):
    return {name: network for name, network in config.networks.items() if isinstance(network, Trained)}


def check_all(raw):
    config = validated(raw)
    for name in config.networks:
        config.check_network(name)


def refusal(raw):
    with pytest.raises(ConfigError) as error:
        check_all(raw)
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
        ("networks.M1.channels", 8, "unknown key"),
        ("networks.M1.dropout", 0.5, "got 0.5"),
        ("networks.M1.dropout", [0.0, 0.5, 0.5], "give minibatches"),
        ("networks.M1.perturbed", {"kind": "steps", "norms": [1, 1, 1], "weight": 1}, "give minibatches"),
        ("data.files.train_images.md5", "0", "unknown key"),
        ("tables.table4.blocks.0.clip", True, "unknown key"),
        ("tables.table3.blocks", [], "unknown key"),
        ("attack.lbfgs.norm", ..., "equired"),
        ("networks.M1.seed", ..., "equired"),
        ("training", ..., "equired"),
        # Wrong types and values
        ("training.max_iterations", "many", "'many'"),
        ("networks.M1_prime.seed", "two", "got 'two'"),
        ("training.max_iterations", 0, "got 0"),
        ("training.threads", 1.5, "got 1.5"),
        ("training.device", "gpu", "got 'gpu'"),
        ("training.decay_convention", "full", "got 'full'"),
        ("training.method", "minibatches", "got 'minibatches'"),
        ("training.method", ..., "equired"),
        ("training.gradient_tolerance", float("inf"), "got inf"),
        ("attack.lbfgs.norm", "linf", "got 'linf'"),
        ("attack.lbfgs.c_growth", 1.0, "got 1.0"),
        ("attack.margin", -1e-4, "got -0.0001"),
        ("attack.sqp.exploration", -1, "got -1"),
        ("attack.sqp.noise", -0.5, "got -0.5"),
        ("attack.sqp.smoothing", float("inf"), "got inf"),
        ("attack.sqp.momentum", 1.0, "got 1.0"),
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
        (
            "data.files",
            FILES | {"test_labels": FILES["train_labels"]},
            "one name stands for two files: train-images",
        ),
        ("data.sources.0", {"kind": "folder"}, "give a path, or the environment variable that has it"),
        ("networks.M1.units", [100, 100, 9], "9 units in the last layer, for 10 classes"),
        ("splits.parts.P2", [29999, 60000], "overlaps"),
        ("splits.parts.P2", [30000, 60001], "60000 images"),
        ("splits.parts.P2", [40000, 30000], "no range"),
        ("ablations.every", {"pictures": None}, "pictures: None is no section"),
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


def test_the_papers_numbers_are_held_against_those_of_mnist_alone():
    other = ("data.files.test_labels.sha256", "0" * 64)
    message = refusal(changed(other))
    assert message.startswith(
        "compare_with_paper: the paper's numbers are those of MNIST, and data.files are others: set it to"
    )
    validated(changed(other, ("compare_with_paper", False)))


def test_a_target_for_all_images_is_one_of_the_classes():
    raw = [("attack.correct_only", True), ("attack.target", 10)]
    assert refusal(changed(*raw)) == "attack.target: 10 is no class of 10 from 0 on"
    validated(changed(*raw, ("attack.target", 9)))


def test_given_targets_need_a_file():
    message = refusal(changed(("attack.target", "given")))
    assert message == "attack: given_targets names a file exactly when target is given"


def test_given_targets_with_a_file_are_right():
    assert (
        validated(changed(("attack.target", "given"), ("attack.given_targets", "targets.txt"))).attack.target
        == "given"
    )


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
    # `train` and `test` mean all of the images wherever a
    # split is named, so such a part would be passed over.
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


# --- Networks that are attacked otherwise ---


def test_a_network_is_attacked_with_its_own_options_and_else_as_all_are():
    own = {"lbfgs": {"history": 9}, "sqp": {"noise": 0.5}}
    config = validated(
        changed(("networks.M1.attack", own), ("attack.lbfgs.max_searches", 17), ("attack.sqp.noise", 3.0))
    )
    found = config.attack_against("M1", "test")
    assert (found.lbfgs.history, found.lbfgs.max_searches, found.sqp.noise) == (9, 17, 0.5)
    assert found.margin == config.attack.margin
    assert config.attack_against("M2", "test") == config.attack


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"lbfsg": {}}, "networks.M1.attack.lbfsg"),
        ({"lbfgs": {"histroy": 3}}, "networks.M1.attack.lbfgs.histroy: unknown key"),
        ({"lbfgs": {"history": 0}}, "networks.M1.attack.lbfgs.history"),
        (
            {"lbfgs": {"norm": "squared_l2"}},
            "networks.M1.attack.lbfgs.norm: all networks of a table have the same one",
        ),
        ({"sample": 10}, "networks.M1.attack.sample"),
    ],
)
def test_one_mistake_in_a_networks_own_attack_is_one_line(own, words):
    assert words in refusal(changed(("networks.M1.attack", own)))


# --- Networks that are trained otherwise ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": [10], "weight_decay": []}, "give two units at least, and sigmoid"),
        ({"activation": "relu"}, "give two units at least, and sigmoid"),
        ({"activation": "tanh"}, "give two units at least, and sigmoid"),
        ({"weight_decay": [1e-6, 1e-6]}, "weight_decay has 2 values for 1 trained layers"),
        ({"weight_decay": []}, "weight_decay has 0 values for 1 trained layers"),
        ({"units": [400, 50, 10]}, "weight_decay has 1 values for 2 trained layers"),
        ({"pretraining": None}, "weight_decay has 1 values for 2 trained layers"),
    ],
)
def test_pretraining_is_of_a_sigmoid_layer_below_others_and_takes_its_decay(changes, words):
    message = refusal(changed(*((f"networks.AE400_10.{key}", value) for key, value in changes.items())))
    assert message.startswith("networks.AE400_10: ")
    assert words in message


def test_pretraining_may_have_any_number_of_layers_above_and_without_it_every_layer_decays():
    units, decays = "networks.AE400_10.units", "networks.AE400_10.weight_decay"
    network = validated(changed((units, [400, 50, 10]), (decays, [1e-6, 1e-5]))).networks["AE400_10"]
    assert network.pretraining.sparsity == 0.1
    without = [("networks.AE400_10.pretraining", ...), (decays, [1e-6, 1e-5])]
    assert validated(changed(*without)).networks["AE400_10"].pretraining is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("AE400_10.pretraining.sparsity", 0, "got 0"),
        ("AE400_10.pretraining.sparsity", 1, "got 1"),
        ("AE400_10.pretraining.sparsity_weight", -1, "got -1"),
        ("AE400_10.pretraining.weight_decay", -1e-3, "got -0.001"),
        ("AE400_10.pretraining.max_iterations", 0, "got 0"),
        ("AE400_10.pretraining.max_iterations", ..., "equired"),
        ("AE400_10.pretraining.history", 0, "got 0"),
        ("AE400_10.pretraining.epochs", 3, "unknown key"),
        ("AE400_10.minibatches", {"size": 1, "epochs": 1, "learning_rate": 1}, "leave out pretraining"),
        ("Conv.pretraining", None, "unknown key"),
        ("Conv.dropout", 1, "got 1"),
        ("Conv.dropout", -0.1, "got -0.1"),
        ("Conv.channels", 0, "got 0"),
        ("Conv.pool", 0, "got 0"),
        ("Conv.minibatches", ..., "equired"),
        ("Conv.minibatches.size", 0, "got 0"),
        ("Conv.minibatches.learning_rate", 0, "got 0"),
        ("Conv.minibatches.rate", 1, "unknown key"),
        ("Conv.weight_decay", [1e-5, 1e-5], "2 values for 3 trained layers"),
        ("Conv.units", [128, 9], "9 units in the last layer, for 10 classes"),
    ],
)
def test_one_mistake_in_a_network_that_is_trained_otherwise_is_one_line(key, value, words):
    message = refusal(changed((f"networks.{key}", value)))
    assert words in message
    assert message.startswith((f"networks.{key}: ", f"networks.{key.partition('.')[0]}: "))


@pytest.mark.parametrize(
    ("image_shape", "kernel", "pool", "right"),
    [
        ((28, 28), 26, 3, True),
        ((28, 28), 27, 3, False),
        ((28, 28), 28, 1, True),
        ((28, 28), 29, 1, False),
        ((28, 28), 1, 28, True),
        ((28, 28), 1, 29, False),
        ((7, 28), 5, 3, True),
        ((28, 7), 5, 3, True),
        ((6, 28), 5, 3, False),
        ((28, 6), 5, 3, False),
    ],
)
def test_a_convolution_and_its_pooling_must_leave_something_of_an_image(image_shape, kernel, pool, right):
    raw = changed(
        ("data.image_shape", [*image_shape]), ("networks.Conv.kernel", kernel), ("networks.Conv.pool", pool)
    )
    if right:
        network = architectures.build(validated(raw).networks["Conv"].definition(), image_shape)
        assert network(torch.zeros(2, *image_shape)).shape == (2, 10)
    else:
        message = refusal(raw)
        assert message == f"networks.Conv: its kernel and pool are larger than an image, {image_shape}"


@pytest.mark.parametrize("overlay", ["config.yaml", "small.yaml"])
def test_a_network_is_built_by_its_definition_and_trained_and_attacked_by_the_rest_of_its_keys(overlay):
    raw = merged(DEFAULT, yaml.safe_load((FOLDER / overlay).read_text()))
    config = validated(raw)
    for name, network in trained_networks(config).items():
        definition, training = network.definition(), network.training()
        assert not definition.keys() & training.keys()
        assert "attack" not in definition.keys() | training.keys()
        assert {**definition, **training, "attack": network.attack} == network.model_dump(mode="json")
        assert raw["networks"][name].keys() <= definition.keys() | training.keys() | {"attack"}
        # What is left out of the definition cannot change what is built, nor what is in it how it is trained.
        assert {"units", "activation", "kind"} <= definition.keys()
        assert {"seed", "trained_on", "weight_decay"} <= training.keys()
        built = architectures.build(json.loads(json.dumps(definition)), config.data.image_shape)
        assert built(torch.zeros(2, 28, 28)).shape == (2, network.classes)
        layers = architectures.weight_layers(built)
        assert len(layers) == len(network.weight_decay) + (training.get("pretraining") is not None)
        assert network.linear == (len(layers) == 1)


def test_the_default_networks_are_those_of_the_paper():
    config = validated(DEFAULT)
    trained = trained_networks(config)
    kinds = {name: (network.kind, *network.units) for name, network in trained.items()}
    assert kinds["AE400_10"] == ("fully_connected", 400, 10)
    assert kinds["Conv"][0] == "convolutional"
    assert [name for name, network in trained.items() if network.training().get("pretraining")] == [
        "AE400_10"
    ]
    compared = config.tables["adversarial_training"].networks
    assert [name for name, network in trained.items() if network.training().get("minibatches")] == [
        "Conv",
        *compared,
    ]
    assert {kinds[name] for name in compared} == {("fully_connected", 100, 100, 10)}


def test_multiplications_are_those_of_the_layers():
    config = validated(DEFAULT)
    shape = config.data.image_shape
    for name, network in trained_networks(config).items():
        counted, values = [], torch.zeros(1, *shape)
        for layer in architectures.build(network.definition(), shape):
            values = layer(values)
            if hasattr(layer, "weight"):  # a filter is applied once for each place of its map, a unit once
                counted.append(values.numel() * layer.weight[0].numel())
        decoder = counted[0] if name == "AE400_10" else 0
        assert network.multiplications(shape) == sum(counted) + decoder, name


# --- Shards ---


@pytest.mark.parametrize(
    ("sample", "per_job", "test", "train"),
    [
        ("all", 10_000, (10_000, 1), (60_000, 6)),
        ("all", 9_999, (10_000, 2), (60_000, 7)),
        ("all", 7_000, (10_000, 2), (60_000, 9)),
        ("all", 100_000, (10_000, 1), (60_000, 1)),
        (60, 60, (60, 1), (60, 1)),
        (61, 60, (61, 2), (61, 2)),
        (1000, 1, (1000, 1000), (1000, 1000)),
    ],
)
def test_a_set_is_cut_into_as_few_shards_as_hold_it(sample, per_job, test, train):
    config = validated(changed(("attack.sample", sample), ("attack.images_per_job", per_job)))
    assert (config.size("test"), config.shards("test")) == test
    assert (config.size("train"), config.shards("train")) == train


def test_sizes_are_those_of_the_data():
    config = validated(changed(("data.test_size", 300), ("data.train_size", 60_001)))
    assert config.size("test") == 300
    assert config.size("train") == 60_001
    assert config.shards("train") == 7


@pytest.mark.parametrize(("sample", "words"), [(10_001, "the test set has 10000"), (60_001, "60001 images")])
def test_a_sample_larger_than_a_set_is_refused(sample, words):
    message = refusal(changed(("attack.sample", sample)))
    assert message.startswith("attack.sample: ")
    assert words in message


# --- Variants ---


def flat(value, key=""):
    """Every single setting by its dotted key."""
    if not isinstance(value, dict):
        return {key: value}
    parts = [flat(part, f"{key}.{name}" if key else name) for name, part in value.items()]
    return {path: item for part in parts for path, item in part.items()}


def settings_of(config):
    """What an artifact can depend on; the variants themselves are no part of it."""
    return flat(config.model_dump(mode="json", exclude={"replicates", "ablations"}))


def differing(one, other):
    one, other = settings_of(one), settings_of(other)
    return {key for key in one.keys() | other.keys() if one.get(key, ...) != other.get(key, ...)}


NOISE = {"kind": "noise", "norms": [1.0, 0.3, 0.3], "weight": 1.0}


def test_a_network_that_no_target_needs_may_not_fit():
    config = validated(changed(("networks.M2.units", [100, 100, 9]), ("data.image_shape", [6, 6])))
    config.check_network("M1")
    for name, words in {
        "M2": "write `classes` as the last of its units",
        "Conv": "larger than an image",
    }.items():
        with pytest.raises(ConfigError, match=words):
            config.check_network(name)


def test_null_is_a_name_but_where_nothing_may_stand():
    networks = {"null": DEFAULT["networks"]["M1"]}
    raw = changed(("tables.table3.networks", ["M1", "null"]), ("attack.given_targets", "null"))
    config = validated(raw | {"networks": raw["networks"] | networks})
    assert config.tables["table3"].networks == ["M1", "null"]
    assert config.attack.given_targets is None


def test_the_keys_that_may_be_null_are_those_of_the_schema():
    schema = reference.json_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = {
        key
        for part in parts
        for key, value in part.get("properties", {}).items()
        if {"type": "null"} in value.get("anyOf", [])
    }
    assert keys == MAY_BE_NULL


def test_a_word_that_yaml_takes_for_a_truth_value_is_to_be_quoted():
    message = refusal(changed(("tables.table3.networks", ["M1", False])))
    assert message == "tables.table3.networks.1: YAML takes this for false: quote it to make it a name"


def test_a_choice_asks_for_no_more_images_than_there_are():
    raw = changed(
        ("data.test_size", 100),
        ("data.train_size", 200),
        ("splits.parts", {"P1": [0, 100], "P2": [100, 200]}),
    )
    assert variants(raw)["ablations/sample_256"].attack.sample == 100


def test_another_number_of_classes_is_one_key():
    networks = validated(changed(("data.classes", 26))).networks
    assert networks["M1"].units == [100, 100, 26]
    assert networks["Conv"].units == [128, 26]
    assert {network.classes for network in networks.values() if network.images == "data"} == {26}


@pytest.mark.parametrize(("size", "sample"), [(10_000, 1000), (500, 500)])
def test_of_few_images_the_ablations_take_all(size, sample):
    raw = changed(("data.test_size", size), ("ablations.every", {"attack": {"sample": 1000}}))
    assert variants(raw)["ablations/as_configured"].attack.sample == sample


def test_a_checksum_may_be_in_capitals():
    capitals = DEFAULT["data"]["files"]["test_labels"]["sha256"].upper()
    assert validated(changed(("data.files.test_labels.sha256", capitals))) == validated(DEFAULT)


def ablated(every, **choices):
    return changed(("ablations.every", every), ("ablations.choices", choices))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_replicates_have_other_seeds_for_all_networks_and_nothing_else(count):
    raw = changed(("replicates", count), ("tables.adversarial_training", ...))
    config, found = validated(raw), variants(raw)
    names = [f"seeds{k}" for k in range(2, count + 1)]
    assert [name for name in found if not name.startswith("ablations/")] == names
    assert list(config.replicated()) == names
    seeds = {f"networks.{name}.seed" for name in trained_networks(config)}
    for name in names:
        assert differing(config, found[name]) == seeds
    everyone = [
        network.seed
        for each in (config, *(found[name] for name in names))
        for network in trained_networks(each).values()
    ]
    assert len(set(everyone)) == count * len(trained_networks(config))


def test_every_ablation_differs_from_the_reference_in_the_keys_of_its_choice_alone():
    config, found = validated(DEFAULT), variants(DEFAULT)
    reference = found["ablations/as_configured"]
    choices = DEFAULT["ablations"]["choices"]
    assert {name for name in found if "/" in name} == {
        f"ablations/{name}" for name in ["as_configured", *choices]
    }
    every = flat(DEFAULT["ablations"]["every"])
    assert differing(config, reference) == every.keys()
    assert settings_of(reference).items() >= every.items()
    for name, choice in choices.items():
        variant = found[f"ablations/{name}"]
        changes = {key for key, value in flat(choice).items() if settings_of(reference)[key] != value}
        assert differing(reference, variant) == changes != set(), name
        assert settings_of(variant).items() >= (every | flat(choice)).items()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"splits": {"seed": 1}}, "splits"),
        ({"data": {"train_size": 10}}, "data"),
        ({"replicates": 3}, "replicates"),
        ({"pictures": {"sample": 10}}, "pictures.sample"),
    ],
)
def test_what_all_variants_share_is_no_choice(change, key):
    for wrong in (ablated({}, other=change), ablated(change)):
        with pytest.raises(
            ConfigError, match=rf"ablations.*{key}: not ablated; use a configuration of its own"
        ):
            variants(wrong)


def test_targets_may_be_given_without_being_so_for_the_ablations():
    found = variants(changed(("attack.target", "given"), ("attack.given_targets", "targets.txt")))
    assert found["ablations/target_second"].attack.given_targets is None


def test_a_choice_has_its_way_over_what_all_ablations_share():
    every = {"attack": {"sample": 500, "lbfgs": {"history": 3}}, "noise": {"clip": True}}
    one, other = {"attack": {"sample": 7}}, {"attack": {"lbfgs": {"norm": "squared_l2"}}}
    found = variants(ablated(every, one=one, other=other))
    reference, one, other = (found[f"ablations/{name}"] for name in ("as_configured", "one", "other"))
    assert (reference.attack.sample, one.attack.sample, other.attack.sample) == (500, 7, 500)
    assert [each.attack.lbfgs.norm for each in (reference, one, other)] == ["l2", "l2", "squared_l2"]
    assert all(each.attack.lbfgs.history == 3 and each.noise.clip for each in (reference, one, other))


def test_a_choice_replaces_lists_and_reaches_networks():
    choice = {"networks": {"M1": {"units": [50, 10], "weight_decay": [0.1, 0.2]}}}
    found = variants(ablated({}, small=choice))
    assert found["ablations/small"].networks["M1"].units == [50, 10]
    assert differing(found["ablations/as_configured"], found["ablations/small"]) == flat(choice).keys()
    assert differing(validated(DEFAULT), found["ablations/as_configured"]) == set()


def test_ablations_keep_the_seeds_of_the_experiment():
    found = variants(changed(("replicates", 2)))
    wanted = [network.seed for network in trained_networks(validated(DEFAULT)).values()]
    for name, config in found.items():
        if name.startswith("ablations/"):
            assert [network.seed for network in trained_networks(config).values()] == wanted


def test_variants_of_every_configuration_of_the_project_are_right():
    for path in FOLDER.glob("*.yaml"):
        raw = merged(DEFAULT, yaml.safe_load(path.read_text()))
        before = copy.deepcopy(raw)
        assert "ablations/as_configured" in variants(raw)
        assert raw == before


def test_nulls_from_the_command_line_are_nulls_in_variants():
    raw = changed(("attack.given_targets", "null"), ("replicates", 2))
    assert variants(raw)["seeds2"].attack.given_targets is None


@pytest.mark.parametrize(
    ("choice", "key"),
    [
        ({"attack": {"nrom": "l2"}}, "attack.nrom: unknown key"),
        ({"atack": {"norm": "l2"}}, "atack: unknown key"),
        ({"attack": {"lbfgs": {"norm": "linf"}}}, "attack.lbfgs.norm: "),
        ({"networks": {"M1": {"weight_decay": [0.1]}}}, "networks.M1: weight_decay has 1 values"),
        ({"training": 3}, "training: "),
        ({"networks": {"sigmoid_decay": {"perturbed": NOISE}}}, "networks.sigmoid_decay: its `kind`"),
        ({"networks": {"sigmoid_noise": {"perturbed": None}}}, "networks.sigmoid_noise: its `kind`"),
        (
            {"networks": {"softmax1": {"units": [30, 10], "weight_decay": [1e-4] * 2}}},
            "networks.softmax1: its `kind`",
        ),
    ],
)
def test_a_wrong_key_in_a_choice_is_one_line_that_names_the_choice_and_the_key(choice, key):
    raw = ablated({"attack": {"sample": 100}}, right={"noise": {"clip": True}}, wrong=choice)
    with pytest.raises(ConfigError) as error:
        variants(raw)
    message = str(error.value)
    assert message.startswith(f"ablations.choices.wrong: {key}")
    assert "\n" not in message
    assert "right" not in message


def test_a_wrong_key_for_all_ablations_is_one_line_that_names_it():
    with pytest.raises(ConfigError, match=r"^ablations\.every: attack\.nrom: unknown key$"):
        variants(ablated({"attack": {"nrom": 1}}))


def test_variants_tell_a_wrong_configuration_as_its_check_does():
    with pytest.raises(ConfigError, match=r"^noise\.seed: "):
        variants(changed(("noise.seed", -1)))


@pytest.mark.parametrize("name", ["a/b", "1st", "M 1", "", "M.1"])
def test_names_of_choices_that_are_no_file_names_are_refused(name):
    assert "ablations.choices" in refusal(ablated({}, **{name: {}}))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ablations.tables", ["table1", "table9"], "'table9' is not known"),
        ("ablations.colour", "red", "unknown key"),
        ("ablations.every", ..., "equired"),
        ("replicates", 0, "got 0"),
        ("replicates", True, "got True"),
        ("attack.images_per_job", 0, "got 0"),
    ],
)
def test_one_mistake_about_variants_is_one_line(key, value, words):
    message = refusal(changed((key, value)))
    assert message.startswith(f"{key}: ")
    assert words in message


def test_an_ablation_cannot_take_the_name_of_what_it_is_held_against():
    message = refusal(changed(("ablations.choices.as_configured", {"noise": {"clip": True}})))
    assert "ablations.choices.as_configured: this name stands for the experiment as it is" in message


# --- Pictures and networks that come trained ---


def test_pretrained_networks_are_built_by_their_definition_for_the_pictures():
    config = validated(DEFAULT)
    found = {name: network for name, network in config.networks.items() if isinstance(network, Pretrained)}
    assert found.keys() == {"EfficientNetLite0", "EfficientNetLite1", "AlexNet"}
    for network in found.values():
        assert network.images == PICTURES
        assert not {"weights", "sources"} & network.definition().keys()
        built = architectures.build(json.loads(json.dumps(network.definition())), (3, 64, 64)).eval()
        assert built(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_pictures_are_attacked_as_images_are_but_for_what_their_section_says():
    config = validated(
        changed(("attack.lbfgs.history", 9), ("pictures.attack", {"target": 9, "correct_only": True}))
    )
    of_pictures = config.attack_on(PICTURES)
    assert config.attack_on("test") == config.attack
    assert (of_pictures.target, of_pictures.correct_only, of_pictures.lbfgs.history) == (9, True, 9)
    assert {
        **of_pictures.model_dump(),
        "target": "random",
        "correct_only": False,
    } == config.attack.model_dump()


@pytest.mark.parametrize(
    ("folder", "sample", "of_attack", "size"),
    [
        (None, "all", 64, 20),
        (None, "all", 7, 7),
        (None, 12, 64, 12),
        (None, "all", "all", 20),
        ("/x", "all", 64, 64),
        ("/x", 50, "all", 50),
    ],
)
def test_as_many_pictures_are_attacked_as_there_are_and_are_asked_for(folder, sample, of_attack, size):
    config = validated(
        changed(
            ("pictures.folder", folder), ("pictures.sample", sample), ("pictures.attack.sample", of_attack)
        )
    )
    assert config.size(PICTURES) == size
    assert config.shards(PICTURES) == -(-size // 10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("pictures.label", "(")], "pictures: label: ( is no regular expression"),
        ([("pictures.label", "x")], "pictures: label: x has 0 groups"),
        ([("pictures.size", 300)], "pictures: size: 300 pixels cannot be cut out of 256"),
        ([("pictures.files", {})], "pictures: give files, or a folder"),
        ([("pictures.attack", {"lbfsg": 1})], "pictures.attack.lbfsg: unknown key"),
        ([("pictures.attack.target", 1000)], "pictures.attack.target: 1000 is no class of 1000"),
        (
            [("attack.target", 3)],
            "attack: target 3: images that are of this class already have to be left out",
        ),
        (
            [("pictures.folder", "/x"), ("pictures.attack.sample", "all")],
            "pictures.attack.sample: give a number",
        ),
        (
            [("networks.AlexNet.classes", 10)],
            "networks.AlexNet: 10 units in the last layer, for 1000 classes",
        ),
        ([("networks.AlexNet.weights.sha256", "7be5be79")], "networks.AlexNet.weights.sha256"),
        (
            [("tables.table5.networks", ["Conv"])],
            "tables.table5.networks: Conv classifies no images of the pictures set",
        ),
        (
            [("tables.table4.networks", ["AlexNet"])],
            "tables.table4.networks: AlexNet classifies no images of the test set",
        ),
        ([("units.of.mnist.network", "M3")], "units.of.mnist.network: 'M3' is not known"),
        (
            [("units.of.mnist.figures", ["table4", "figure2"])],
            "units.of: the figures: table4 stands there more than once",
        ),
        ([("units.of.mnist.top", 1)], "units.of.mnist.top"),
    ],
)
def test_what_cannot_be_done_with_pictures_is_refused(changes, words):
    assert words in refusal(changed(*changes))


@pytest.mark.parametrize("name", ["units", "ablations", "claims", "audit"])
def test_a_table_named_as_another_of_the_results_is_refused(name):
    raw = changed()
    raw["tables"][name] = raw["tables"].pop("figure7")
    assert f"tables.{name}: this name stands for another of the results" in refusal(raw)


IN_MINIBATCHES = {"size": 100, "epochs": 2, "learning_rate": 1e-3}
POOLS = {
    "kind": "pools",
    "norms": [1, 1, 1],
    "weight": 1,
    "amplified": True,
    "size": 100,
    "replaced": 0.5,
    "batch": 50,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"perturbed": POOLS | {"norms": [1, 1]}}, "2 values for the input and 2 hidden layers"),
        ({"perturbed": POOLS | {"norms": [0, 0, 0]}}, "perturb nothing"),
        ({"perturbed": POOLS | {"norms": [-1, 1, 1]}}, "got -1"),
        ({"perturbed": POOLS | {"weight": 0}}, "got 0"),
        ({"perturbed": POOLS | {"batch": 101}}, "101 examples at a time do not fit in a pool of 100"),
        ({"perturbed": POOLS | {"replaced": 0}}, "got 0"),
        ({"perturbed": {"kind": "steps", "norms": [1, 1, 1], "weight": 1, "size": 3}}, "unknown key"),
        ({"perturbed": {"kind": "virtual", "norms": [1, 1, 1], "weight": 1}}, "got 'virtual'"),
        ({"dropout": [0.2, 0.5]}, "2 values for the input and 2 hidden layers"),
        ({"dropout": [0.2, 0.5, 1.0]}, "got 1.0"),
    ],
)
def test_one_mistake_in_a_training_in_minibatches_is_one_line(change, words):
    raw = changed(("networks.M1.minibatches", IN_MINIBATCHES))
    raw["networks"]["M1"] |= change
    message = refusal(raw)
    assert words in message
    assert message.startswith("networks.M1")


def test_how_a_network_is_perturbed_is_of_its_training_and_its_dropout_of_what_is_built():
    raw = changed(("networks.M1.minibatches", IN_MINIBATCHES), ("networks.M1.perturbed", POOLS))
    raw["networks"]["M1"]["dropout"] = [0.1, 0.2, 0.3]
    network = validated(raw).networks["M1"]
    assert network.definition()["dropout"] == [0.1, 0.2, 0.3]
    assert network.training()["perturbed"] == POOLS
    assert not {"perturbed", "minibatches"} & set(network.definition())


NETWORKS = ["sigmoid_decay", "sigmoid_pools"]


def of_methods(**changes):
    table = {
        "kind": "methods",
        "networks": NETWORKS,
        "errors_on": ["test"],
        "seeds": 3,
        "baselines": NETWORKS[:1],
    }
    return changed(("tables", {"some": table | changes}), ("ablations.tables", []))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baselines": ["M1"]}, "'M1' is not known; there are sigmoid_decay, sigmoid_pools"),
        ({"baselines": NETWORKS[:1] * 2}, "baselines: sigmoid_decay stands there more than once"),
        ({"networks": [*NETWORKS, "M3"]}, "'M3' is not known"),
        (
            {"networks": [*NETWORKS, "M1"]},
            "M1 is not trained by epochs: give it minibatches, or leave it out",
        ),
        ({"networks": [*NETWORKS, *NETWORKS]}, "sigmoid_decay, sigmoid_pools stands there more than once"),
        ({"networks": [*NETWORKS, "EfficientNetLite0"]}, "EfficientNetLite0 classifies no images"),
        ({"errors_on": ["validation"]}, "'validation' is not known"),
        ({"errors_on": ["test", "test"]}, "test stands there more than once"),
        ({"seeds": 0}, "got 0"),
        ({"distorted": "test"}, "unknown key"),
    ],
)
def test_one_mistake_in_a_table_of_methods_is_one_line(change, words):
    message = refusal(of_methods(**change))
    assert words in message
    assert message.startswith("tables.some")


def test_a_table_of_methods_attacks_nothing():
    sample = ("attack.sample", 60_000)
    assert "the test set has 10000" in refusal(changed(sample))
    assert (
        validated(changed(sample, ("tables", of_methods()["tables"]), ("ablations.tables", []))).attack.sample
        == 60_000
    )


@pytest.mark.parametrize(("replicates", "seeds", "names"), [(1, 3, 2), (1, 1, 0), (5, 3, 4)])
def test_a_table_of_methods_has_its_own_number_of_trainings(replicates, seeds, names):
    raw = of_methods(seeds=seeds) | {"replicates": replicates}
    config = validated(raw)
    assert list(config.replicated()) == [f"seeds{k}" for k in range(2, 2 + names)]
    assert config.trainings(config.tables["some"]) == max(replicates, seeds)
    other = validated(changed(("replicates", replicates)))
    assert other.trainings(other.tables["table1"]) == replicates


@pytest.mark.parametrize("units", ["sigmoid", "relu"])
def test_trainings_are_ordered_by_how_long_they_take(units):
    config = validated(DEFAULT)
    networks = [config.networks[f"{units}_{method}"] for method in ("input", "hidden", "steps", "pools")]
    passes = [network.perturbed.passes(config.data.train_size) for network in networks]
    assert passes == sorted(passes)
    lengths = [count * network.minibatches.epochs for count, network in zip(passes, networks, strict=True)]
    assert 4 * lengths[-2] < lengths[-1]


def test_a_pass_of_pools_is_as_long_as_the_examples_that_it_makes():
    config = validated(DEFAULT)
    steps, pools = (config.networks[f"sigmoid_{method}"].perturbed for method in ("steps", "pools"))
    images = config.data.train_size
    assert 2 * steps.passes(images) < pools.passes(images)
    fewer = pools.model_copy(update={"replaced": pools.replaced / 3})
    assert steps.passes(images) < fewer.passes(images) < pools.passes(images)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "attack: {sample: 100}\nnoise: {seed: 1}\nattack: {seed: 7}\n",
            "line 1: attack stands there more than once",
        ),
        ("attack:\n  sample: 100\n  sample: 10\n", "line 2: sample stands there more than once"),
        ("networks:\n  - {a: 1, a: 2}\n", "line 2: a stands there more than once"),
        ("attack: {sample: 0100}\n", "line 1: 0100 is 64 in YAML"),
        ("attack: {seed: 010}\n", "line 1: 010 is 8 in YAML"),
        ("attack:\n  sample: 1:30\n", "line 2: 1:30 is 90 in YAML"),
    ],
)
def test_what_yaml_takes_for_something_else_is_told(tmp_path, text, words):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        check_written(path)
    assert str(error.value).startswith(f"{path}, {words}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "attack: {sample: 0}\nnoise: {sample: 100, seed: 0x10, text: '0100'}\n",
        "base: &base {seed: 1}\nattack: {<<: *base, sample: 1}\nnoise: {<<: *base, seed: 2}\n",
        "a: {seed: 1}\nb: {seed: 1}\n",
    ],
)
def test_what_yaml_takes_as_it_looks_is_passed(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    check_written(path)


def test_the_projects_own_configurations_are_what_they_look_like():
    for path in FOLDER.glob("*.yaml"):
        check_written(path)
