"""Sets of distorted images that are cut into shards: made,
evaluated and gathered, they are as if they were never cut."""

import json

import h5py
import numpy as np
import pytest
import torch

from blindspots.attack import core as attacks
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP
from blindspots.networks import architectures
from blindspots.networks.evaluation import classify
from blindspots.steps import artifacts, image_sets, trained_networks
from blindspots.steps.artifacts import Array
from blindspots.steps.examples import example_arrays
from scripts import add_noise as noise
from scripts import attack_network as attack
from scripts import evaluate_distorted
from scripts import gather_shards as gather
from scripts import refine_examples as refine

WORDS = h5py.enum_dtype({"not found": 0, "converged": 1, "stopped": 7}, basetype=np.uint8)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (17, 3, 4), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 17, dtype=np.uint8)


def called(main, settings=None, **files):
    """Run a program of the workflow in this process, as `test_workflow` does; its exit status."""
    arguments = []
    for role, paths in files.items():
        arguments += [f"--{role}", *map(str, paths if isinstance(paths, list) else [paths])]
    return main([*arguments, "--settings", json.dumps(settings or {})])


def contents(path):
    with artifacts.read(path) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return {name: file[name][()] for name in names}


def examples(count, seed, start=0):
    """Such arrays as the attack writes, some without success."""
    rng = np.random.default_rng(seed)
    success = rng.random(count) < 0.7
    return {
        "index": Array(start + np.arange(count), "(n,) places in the test set"),
        "labels": Array(rng.integers(0, 3, count, dtype=np.uint8), "(n,) classes"),
        "images": Array(rng.random((count, 3, 4), dtype=np.float32), "(n, height, width) x + r"),
        "success": Array(success, "(n,) found"),
        "distortion": Array(np.where(success, rng.random(count), np.nan), "(n,) NaN where none was found"),
        "pairs": Array(rng.integers(-9, 9, (count, 2)), "(n, 2) of two axes"),
        "single": Array(rng.random(count, dtype=np.float32), "(n,) of single precision"),
        "status": Array(rng.choice([0, 1, 7], count).astype(np.uint8).astype(WORDS), "(n,) an enumeration"),
    }


def written(folder, shards):
    """One artifact for each of the shards."""
    paths = [folder / f"{number}-of-{len(shards)}.h5" for number in range(1, len(shards) + 1)]
    for path, shard in zip(paths, shards, strict=True):
        artifacts.write(path, shard, {})
    return paths


def cut(whole, bounds):
    """An artifact's arrays as shards."""
    return [
        {name: Array(values[start:end], meaning) for name, (values, meaning) in whole.items()}
        for start, end in zip([0, *bounds], [*bounds, None], strict=True)
    ]


def network_artifact(path, seed):
    definition = {"kind": "fully_connected", "units": [5, 3], "activation": "sigmoid"}
    network = architectures.build(definition, [3, 4])
    for number, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(100 * seed + number))
    arrays = {f"parameters/{key}": Array(value, "weights") for key, value in network.state_dict().items()}
    artifacts.write(
        path, arrays | {"image_shape": Array([3, 4], "shape")}, {"settings": {"network": definition}}
    )
    return path


@pytest.fixture
def data(tmp_path):
    arrays = {"test/images": PIXELS, "test/labels": LABELS}
    artifacts.write(
        tmp_path / "data.h5", {name: Array(values, "some") for name, values in arrays.items()}, {}
    )
    return tmp_path / "data.h5"


# --- Gathering ---


@pytest.mark.parametrize("counts", [(4,), (4, 4), (5, 4, 4), (1, 0, 2)])
def test_all_but_the_images_are_gathered_in_the_order_of_the_shards(tmp_path, counts):
    shards = [examples(count, seed, start=100 * seed) for seed, count in enumerate(counts)]
    assert called(gather.main, shards=written(tmp_path, shards), output=tmp_path / "all.h5") == 0
    with artifacts.read(tmp_path / "all.h5") as file:
        assert set(file) == set(shards[0]) - {"images"}
        for name, array in file.items():
            wanted = np.concatenate([shard[name].values for shard in shards])
            assert array.dtype == wanted.dtype
            assert np.array_equal(array[()], wanted, equal_nan=wanted.dtype.kind == "f")
            assert array.attrs["meaning"] == shards[0][name].meaning


def test_shards_are_gathered_as_they_are_named_and_not_by_name_or_place(tmp_path):
    first, second, third = written(tmp_path, [examples(3, seed, start=100 * seed) for seed in range(3)])
    assert called(gather.main, shards=[third, first, second], output=tmp_path / "all.h5") == 0
    assert contents(tmp_path / "all.h5")["index"].tolist() == [200, 201, 202, 0, 1, 2, 100, 101, 102]


def test_an_enumeration_keeps_its_words(tmp_path):
    shards = [examples(6, seed) for seed in range(2)]
    assert called(gather.main, shards=written(tmp_path, shards), output=tmp_path / "all.h5") == 0
    with artifacts.read(tmp_path / "all.h5") as file:
        assert h5py.check_enum_dtype(file["status"].dtype) == {"not found": 0, "converged": 1, "stopped": 7}
        assert file["status"].dtype == np.uint8
        assert h5py.check_enum_dtype(file["labels"].dtype) is None
        assert file["success"].dtype == bool


def test_what_was_not_found_stays_unknown(tmp_path):
    shards = [examples(9, seed) for seed in range(3)]
    assert called(gather.main, shards=written(tmp_path, shards), output=tmp_path / "all.h5") == 0
    gathered = contents(tmp_path / "all.h5")
    assert np.array_equal(np.isnan(gathered["distortion"]), ~gathered["success"])
    assert 0 < np.isnan(gathered["distortion"]).sum() < 27


def test_a_gathered_artifact_names_its_shards(tmp_path):
    paths = written(tmp_path, [examples(2, seed) for seed in range(2)])
    assert called(gather.main, shards=paths, output=tmp_path / "all.h5") == 0
    with artifacts.read(tmp_path / "all.h5") as file:
        assert json.loads(file.attrs["inputs"])["shards"] == {
            str(path): artifacts.identity(path) for path in paths
        }


def test_a_damaged_shard_is_refused(tmp_path):
    paths = written(tmp_path, [examples(2, seed) for seed in range(2)])
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    assert called(gather.main, shards=paths, output=tmp_path / "all.h5") == 1
    assert not (tmp_path / "all.h5").exists()


# --- Evaluating ---


def named(shards):
    return [{"name": name, "shards": len(paths)} for name, paths in shards.items()]


@pytest.mark.parametrize("bounds", [[7], [5, 9], [1, 2, 10]])
def test_rows_in_shards_are_evaluated_as_in_one_piece(tmp_path, bounds):
    rows = {name: examples(13, seed) for seed, name in enumerate(["A", "B", "noise_0.1"])}
    # A shard in which nothing was found
    rows["B"]["success"].values[: bounds[0]] = False
    settings = {"columns": ["A", "B"], "device": "cpu"}
    judges = [network_artifact(tmp_path / f"{name}.h5", seed) for seed, name in enumerate("AB")]
    outcomes = {}
    for way, cuts in {"whole": [], "cut": bounds}.items():
        shards = {name: written(tmp_path / way / name, cut(row, cuts)) for name, row in rows.items()}
        paths = [path for row in shards.values() for path in row]
        assert len(paths) == 3 * (len(cuts) + 1)
        output = tmp_path / f"{way}.h5"
        assert (
            called(
                evaluate_distorted.main,
                settings | {"rows": named(shards)},
                distorted=paths,
                networks=judges,
                output=output,
            )
            == 0
        )
        outcomes[way] = contents(output)
    assert outcomes["cut"].keys() == outcomes["whole"].keys()
    for name, values in outcomes["whole"].items():
        assert np.array_equal(outcomes["cut"][name], values), name
        assert outcomes["cut"][name].dtype == values.dtype


def test_every_row_is_rated_by_every_network_where_an_example_was_found(tmp_path):
    rows = {name: examples(13, seed, start=50 * seed) for seed, name in enumerate("ABC")}
    judges = {name: network_artifact(tmp_path / f"{name}.h5", seed) for seed, name in enumerate("XY")}
    shards = {name: written(tmp_path / name, cut(row, [4, 9])) for name, row in rows.items()}
    paths = [path for row in shards.values() for path in row]
    settings = {"rows": named(shards), "columns": list(judges), "device": "cpu"}
    output = tmp_path / "out.h5"
    assert (
        called(evaluate_distorted.main, settings, distorted=paths, networks=[*judges.values()], output=output)
        == 0
    )
    result, rates = contents(output), []
    for name, row in rows.items():
        success = row["success"].values
        assert 0 < success.sum() < 13
        assert result[f"index/{name}"].tolist() == row["index"].values[success].tolist()
        assert result[f"failures/{name}"] == (~success).sum()
        for judge, path in judges.items():
            said = trained_networks.read(path)(torch.from_numpy(row["images"].values)).argmax(1).numpy()
            wanted = (said != row["labels"].values)[success]
            assert result[f"misclassified/{name}/{judge}"].tolist() == wanted.tolist()
            rates.append(tuple(wanted))
    assert len(set(rates)) == 6  # so that no row or column can be taken for another


# --- Making shards ---


@pytest.mark.parametrize("sample", ["all", 11])
@pytest.mark.parametrize("total", [2, 5])
def test_noise_does_not_depend_on_how_the_set_is_cut(tmp_path, data, sample, total):
    def noisy(shard):
        settings = {
            "images": "test",
            "sample": {"size": sample, "seed": 3},
            "shard": shard,
            "stddev": 0.2,
            "seed": 4,
        }
        path = tmp_path / f"{shard}.h5"
        assert called(noise.main, settings | {"clip": False}, data=data, output=path) == 0
        return contents(path)

    whole = noisy("1-of-1")
    shards = [noisy(f"{number}-of-{total}") for number in range(1, total + 1)]
    size = 17 if sample == "all" else 11
    assert len(whole["index"]) == size
    assert np.array_equal(whole["labels"], LABELS[whole["index"]])
    for name, values in whole.items():
        assert np.array_equal(np.concatenate([shard[name] for shard in shards]), values), name
    added = (whole["images"] - PIXELS[whole["index"]] / 255).ravel()
    assert added.std() == pytest.approx(0.2, rel=0.2)
    assert (
        len({image.tobytes() for image in added.reshape(size, -1).round(5)}) == size
    )  # no image has another's noise


ATTACK = {
    "correct_only": False,
    "images": "test",
    "device": "cpu",
    "classes": 3,
    "seed": 5,
    "margin": 0.05,
    "precision": "single",
    "batch": 500,
    "lbfgs": {
        "norm": "l2",
        "c_tolerance": 0.1,
        "c_growth": 1.5,
        "max_searches": 5,
        "tolerance": 1e-2,
        "min_decrease": 1e-2,
        "window": 10,
        "looseness": 10.0,
        "max_evaluations": 20,
        "history": 4,
    },
}


@pytest.mark.parametrize("policy", ["random", "given", "second"])
def test_attacks_on_shards_have_the_targets_of_the_whole_set_whatever_the_sample(tmp_path, data, policy):
    network = network_artifact(tmp_path / "network.h5", 1)
    (tmp_path / "targets.txt").write_text(
        "\n".join(str((label + 1 + k % 2) % 3) for k, label in enumerate(LABELS))
    )
    targets = [tmp_path / "targets.txt"] if policy == "given" else []

    def attacked(shard, size):
        settings = ATTACK | {"target": policy, "shard": shard, "sample": {"size": size, "seed": 3}}
        path = tmp_path / f"{size}_{shard}.h5"
        assert called(attack.main, settings, data=data, network=network, targets=targets, output=path) == 0
        return contents(path)

    whole = attacked("1-of-1", "all")
    shards = [attacked(f"{number}-of-3", "all") for number in (1, 2, 3)]
    assert [len(shard["index"]) for shard in shards] == [6, 6, 5]
    assert whole["index"].tolist() == list(range(17))
    for name in ("index", "labels", "predicted", "target"):
        assert np.array_equal(np.concatenate([shard[name] for shard in shards]), whole[name]), name
    some = attacked("1-of-1", 8)
    assert some["index"][0] > 0 or some["index"].tolist() != list(range(8))
    assert np.array_equal(some["target"], whole["target"][some["index"]])
    assert np.array_equal(whole["labels"], LABELS)
    assert (whole["target"] != LABELS).all()
    if policy == "given":
        assert whole["target"].tolist() == [
            (label + 1 + k % 2) % 3 for k, label in enumerate(LABELS.tolist())
        ]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["1"] * 16 + ["two"], "is not a text file with one class a line"),
        (["1"] * 16, "needs 17 classes below 3"),
        (["1"] * 16 + ["3"], "needs 17 classes below 3"),
        (list(LABELS), "gives image 0 its own label as target"),
    ],
)
def test_given_targets_that_cannot_be_are_refused_in_a_line(tmp_path, data, capfd, lines, why):
    targets = tmp_path / "targets.txt"
    targets.write_text("\n".join(map(str, lines)))
    settings = ATTACK | {"target": "given", "shard": "1-of-1", "sample": {"size": "all", "seed": 3}}
    files = {"data": data, "network": network_artifact(tmp_path / "network.h5", 1), "targets": targets}
    assert called(attack.main, settings, **files, output=tmp_path / "a.h5") == 1
    assert f"attack.given_targets: {targets} {why}" in capfd.readouterr().err
    assert not (tmp_path / "a.h5").exists()


def test_an_attack_and_its_refinement_are_made_in_the_precision_and_with_the_margin_that_are_asked_for(
    tmp_path, data
):
    network = network_artifact(tmp_path / "network.h5", 1)
    asked = ATTACK | {"target": "second", "shard": "1-of-1", "sample": {"size": "all", "seed": 3}}
    options = {
        "exploration": 10,
        "noise": 1.0,
        "smoothing": 0.0,
        "momentum": 0.5,
        "competitors": 2,
        "tolerance": 1e-3,
    }
    originals = image_sets.read(data, "test")
    for precision, dtype in (("single", torch.float32), ("double", torch.float64)):
        settings = asked | {"precision": precision}
        made, near = tmp_path / f"{precision}.h5", tmp_path / f"refined_{precision}.h5"
        assert called(attack.main, settings, data=data, network=network, targets=[], output=made) == 0
        settings |= {"sqp": options | {"max_rounds": 4}}
        assert called(refine.main, settings, data=data, network=network, adversarial=made, output=near) == 0

        model = trained_networks.read(network).to(dtype)
        pixels, labels = (
            torch.from_numpy(originals.pixels).to(dtype),
            torch.from_numpy(originals.labels).long(),
        )
        method = LBFGS(**ATTACK["lbfgs"], rounded=True)
        given = {"margin": settings["margin"], "batch": 500}
        found = attacks.minimum_distortion(model, pixels, "second", labels=labels, method=method, **given)
        minima = attacks.refine(
            model, pixels, found.images, found.targets, method=SQP(**settings["sqp"]), **given
        )
        for path, wanted in ((made, found), (near, minima)):
            images = contents(path)["images"]
            assert images.dtype == np.float32
            assert np.array_equal(images, wanted.images.float().numpy())
            assert np.array_equal(contents(path)["success"], wanted.success.numpy())


def test_what_counts_is_measured_on_the_images_and_not_what_an_attack_says_of_itself(tmp_path, data):
    network, originals = (
        trained_networks.read(network_artifact(tmp_path / "network.h5", 1)),
        image_sets.read(data, "test"),
    )
    found = attacks.minimum_distortion(network, torch.from_numpy(originals.pixels), "second")
    untrue = found._replace(success=~found.success, distortion=2 * found.distortion)
    kept = example_arrays(network, "test", np.arange(17), originals, untrue)
    assert np.array_equal(kept["success"].values, found.success.numpy())
    assert kept["distortion"].values == pytest.approx(found.distortion.numpy(), nan_ok=True)


@pytest.mark.parametrize("target", ["random", 1])
@pytest.mark.parametrize("size", ["all", 3])
def test_of_images_that_are_classified_correctly_as_many_as_are_asked_for_are_attacked(
    tmp_path, data, target, size
):
    network = network_artifact(tmp_path / "network.h5", 1)
    settings = ATTACK | {
        "target": target,
        "correct_only": True,
        "shard": "1-of-1",
        "sample": {"size": size, "seed": 3},
    }
    arguments = {"data": data, "network": network, "targets": [], "output": tmp_path / "a.h5"}
    assert called(attack.main, settings, **arguments) == 0
    found = contents(tmp_path / "a.h5")
    pixels = torch.from_numpy(image_sets.read(data, "test").pixels)
    predicted = classify(trained_networks.read(network), pixels).numpy()
    right = np.flatnonzero((predicted == LABELS) & ((target != LABELS) if target == 1 else True))
    assert 3 < len(right) < len(LABELS)  # so that there is something to choose
    assert set(found["index"]) <= set(right)
    assert len(found["index"]) == (len(right) if size == "all" else size)
    assert (found["predicted"] == found["labels"]).all()
    assert (found["target"] != found["labels"]).all()
    if target == 1:
        assert (found["target"] == 1).all()


def test_a_target_that_every_image_is_of_is_told(tmp_path, capfd):
    arrays = {"test/images": PIXELS[LABELS == 1], "test/labels": LABELS[LABELS == 1]}
    artifacts.write(
        tmp_path / "data.h5", {name: Array(values, "some") for name, values in arrays.items()}, {}
    )
    network = network_artifact(tmp_path / "network.h5", 1)
    settings = ATTACK | {
        "target": 1,
        "correct_only": True,
        "shard": "1-of-1",
        "sample": {"size": "all", "seed": 3},
    }
    arguments = {"data": tmp_path / "data.h5", "network": network, "targets": [], "output": tmp_path / "a.h5"}
    assert called(attack.main, settings, **arguments) == 1
    assert "attack.target: 1 is the label of every image: choose another class" in capfd.readouterr().err


def test_too_few_correctly_classified_images_for_the_shards_are_told(tmp_path, data, capfd):
    network = network_artifact(tmp_path / "network.h5", 1)
    settings = ATTACK | {
        "target": 1,
        "correct_only": True,
        "shard": "3-of-17",
        "sample": {"size": "all", "seed": 3},
    }
    arguments = {"data": data, "network": network, "targets": [], "output": tmp_path / "a.h5"}
    assert called(attack.main, settings, **arguments) == 1
    assert "images do not make 17 shards: raise attack.images_per_job" in capfd.readouterr().err
