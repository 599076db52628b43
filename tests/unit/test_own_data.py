"""The configuration that is written for a folder of IDX files, whatever set they are of."""

import gzip
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import yaml
from conftest import ROOT

from blindspots import own_data
from blindspots.config.loading import validated, variants
from blindspots.config.merging import merged
from blindspots.data import downloads, idx

SHAPE = (28, 28)
NAMES = {
    "mnist": (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
    "qmnist": (
        "qmnist-train-images-idx3-ubyte",
        "qmnist-train-labels-idx2-int",
        "qmnist-test-images-idx3-ubyte",
        "qmnist-test-labels-idx2-int",
    ),
    "emnist": tuple(
        f"emnist-letters-{part}-{kind}-ubyte"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ),
}


def images(count, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count, classes=10, first=0):
    return (np.arange(count) % classes + first).astype(np.uint8)


def as_qmnist(classes):
    """(n, 8) int32: the class, and what QMNIST knows of the writer."""
    wide = np.column_stack([classes, np.full((len(classes), 7), 4)]).astype(">i4")
    return bytes([0, 0, 0x0C, 2]) + struct.pack(">II", *wide.shape) + wide.tobytes()


def written(folder, names, contents, compress=False):
    folder.mkdir(exist_ok=True)
    for name, content in zip(NAMES[names], contents, strict=True):
        content = content if isinstance(content, bytes) else idx.serialise(content)
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content) if compress else content)
    return folder


def made(folder, tmp_path, *arguments):
    """What is written for a folder, checked against the whole
    configuration, and the data set that comes of it."""
    output = tmp_path / "own.yaml"
    assert own_data.main([str(folder), str(output), *arguments]) == 0
    assert output.with_suffix(".png").stat().st_size > 1000
    own = yaml.safe_load(output.read_text())
    config = merged(yaml.safe_load((ROOT / "config/config.yaml").read_text()), own)
    assert variants(config)["ablations/sample_256"].attack.sample == own["data"]["test_size"]
    assert validated(config).data.classes == own["data"]["classes"]
    return own["data"], {role: found(own["data"], role) for role in own["data"]["files"]}


def found(data, role):
    (source,) = data["sources"]
    (_, content), *_ = downloads.from_folder(source, [data["files"][role]["name"]])
    content = idx.decompress(content)
    assert idx.sha256(content) == data["files"][role]["sha256"]
    return idx.parse(content)


@pytest.mark.parametrize("compress", [False, True])
def test_files_as_the_workflow_reads_them_are_described_where_they_are(tmp_path, compress):
    folder = written(tmp_path / "set", "mnist", (images(40), labels(40), images(20), labels(20)), compress)
    data, arrays = made(folder, tmp_path)
    assert data["sources"] == [{"kind": "folder", "path": str(folder)}]
    assert (data["classes"], data["image_shape"], data["train_size"], data["test_size"]) == (
        10,
        [28, 28],
        40,
        20,
    )
    assert np.array_equal(arrays["test_images"], images(20))
    assert {path.name for path in tmp_path.iterdir()} == {"set", "own.yaml", "own.png"}


def test_qmnist_keeps_the_classes_alone(tmp_path):
    contents = (images(40), as_qmnist(labels(40)), images(20), as_qmnist(labels(20)))
    data, arrays = made(written(tmp_path / "set", "qmnist", contents), tmp_path)
    assert data["sources"] == [{"kind": "folder", "path": str(tmp_path / "own_files")}]
    assert np.array_equal(arrays["train_labels"], labels(40))
    assert np.array_equal(arrays["train_images"], images(40))


def test_letters_stand_upright_and_begin_with_0(tmp_path):
    upright = images(52)
    contents = (upright.swapaxes(1, 2), labels(52, 26, 1), images(26).swapaxes(1, 2), labels(26, 26, 1))
    folder = written(tmp_path / "set", "emnist", contents, compress=True)
    (folder / "emnist-digits-train-images-idx3-ubyte").write_bytes(b"of another set")
    data, arrays = made(folder, tmp_path, "--only", "emnist-letters", "--transpose")
    assert data["classes"] == 26
    assert np.array_equal(arrays["train_labels"], labels(52, 26))
    assert np.array_equal(arrays["train_images"], upright)


def test_a_test_set_without_class_0_does_not_move_the_classes(tmp_path):
    contents = (images(40), labels(40), images(9), labels(9, 9, 1))
    _, arrays = made(written(tmp_path / "set", "mnist", contents), tmp_path)
    assert np.array_equal(arrays["test_labels"], labels(9, 9, 1))


def test_fractions_become_bytes(tmp_path):
    fractions = (images(40) / 255).astype(">f4")
    content = bytes([0, 0, 0x0D, 3]) + struct.pack(">III", *fractions.shape) + fractions.tobytes()
    _, arrays = made(
        written(tmp_path / "set", "mnist", (content, labels(40), images(20), labels(20))), tmp_path
    )
    assert np.array_equal(arrays["train_images"], images(40))


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ((images(40), labels(39), images(20), labels(20)), "there are 40 train images and 39 train labels"),
        (
            (images(40), labels(40), images(20, (27, 28)), labels(20)),
            r"images are \(28, 28\), the test images \(27",
        ),
        ((labels(40), labels(40), images(20), labels(20)), r"grey images are \(n, height, width\)"),
        (
            (images(40), labels(40) * 2, images(20), labels(20)),
            "no train image is of class 1, 3, 5, 7, 9, 11",
        ),
        ((images(40), images(40), images(20), labels(20)), r"labels are \(n,\), one class for each image"),
        (
            (
                images(40),
                np.eye(10, dtype=np.uint8)[labels(40)],
                images(20),
                np.eye(10, dtype=np.uint8)[labels(20)],
            ),
            r"has the shape \(40, 10\): labels are \(n,\), one class for each image",
        ),
        ((b"PK\3\4", labels(40), images(20), labels(20)), "train-images-idx3-ubyte: not an IDX file"),
    ],
)
def test_what_is_no_data_set_is_one_line(tmp_path, capsys, contents, why):
    folder = written(tmp_path / "set", "mnist", contents)
    assert own_data.main([str(folder), str(tmp_path / "own.yaml")]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(why, said)
    assert not (tmp_path / "own.yaml").exists()


def test_several_sets_in_a_folder_are_told_apart_by_name(tmp_path, capsys):
    contents = (images(40), labels(40), images(20), labels(20))
    folder = written(tmp_path / "set", "mnist", contents)
    written(folder, "qmnist", contents)
    assert own_data.main([str(folder), str(tmp_path / "own.yaml")]) == 1
    assert "qmnist-train-images-idx3-ubyte, train-images-idx3-ubyte" in capsys.readouterr().err
    assert own_data.main([str(folder), str(tmp_path / "own.yaml"), "--only", "qmnist"]) == 0


@pytest.mark.parametrize("name", ["own", "own.png", "not/there/own.yaml"])
def test_a_name_that_cannot_be_written_is_refused_before_anything_is(tmp_path, capsys, name):
    folder = written(
        tmp_path / "set", "qmnist", (images(40), as_qmnist(labels(40)), images(20), as_qmnist(labels(20)))
    )
    with pytest.raises(SystemExit):
        own_data.main([str(folder), str(tmp_path / name)])
    assert f"{name} is no name ending in .yaml, in a folder that is there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_notebooks_way_to_draw_does_not_keep_it_from_drawing(tmp_path):
    folder = written(tmp_path / "set", "mnist", (images(40), labels(40), images(20), labels(20)))
    environment = {**os.environ, "MPLBACKEND": "module://of_a_notebook.that_is_not_here"}
    command = [sys.executable, "-P", "-m", "blindspots.own_data", str(folder), str(tmp_path / "own.yaml")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "own.png").exists()


def test_files_are_never_changed_where_they_are(tmp_path, capsys):
    contents = (images(40), as_qmnist(labels(40)), images(20), as_qmnist(labels(20)))
    folder = written(tmp_path / "qmnist", "qmnist", contents)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert own_data.main([str(folder), str(tmp_path / "qmnist.yaml")]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert own_data.main([str(folder), str(tmp_path / "qmnist.yaml")]) == 1
    assert (
        "qmnist_files is there already, where the changed files would be written" in capsys.readouterr().err
    )
