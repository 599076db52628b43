"""The program that gets the data set refuses one that is not as the configuration says."""

import hashlib
import json

import numpy as np
import pytest

from blindspots.data import idx
from blindspots.steps import artifacts
from scripts import fetch_images as fetch

ARRAYS = {
    "train_images": np.zeros((5, 3, 4), np.uint8),
    "train_labels": np.array([0, 1, 2, 0, 1], np.uint8),
    "test_images": np.zeros((2, 3, 4), np.uint8),
    "test_labels": np.array([2, 0], np.uint8),
}
RIGHT = {"image_shape": [3, 4], "classes": 3, "train_size": 5, "test_size": 2}


@pytest.fixture
def fetched(tmp_path, monkeypatch, capfd):
    """Runs the program on files in a folder, and gives its
    exit status, what it said, and the artifact's path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(other=None, **changes):
        content = {role: idx.serialise(array) for role, array in ARRAYS.items()} | (other or {})
        for role, part in content.items():
            (tmp_path / role).write_bytes(part)
        files = {
            role: {"name": role, "sha256": hashlib.sha256(part).hexdigest()} for role, part in content.items()
        }
        settings, sources = {"files": files} | RIGHT | changes, [{"kind": "folder", "path": str(tmp_path)}]
        words = ["--settings", json.dumps(settings), "--unrecorded", json.dumps({"sources": sources})]
        status = fetch.main(["--output", str(tmp_path / "data.h5"), *words])
        return status, capfd.readouterr().err, tmp_path / "data.h5"

    return call


@pytest.mark.parametrize(
    ("role", "content", "why"),
    [
        (
            "test_labels",
            b"\0\0\x0c\x02" + bytes([0, 0, 0, 2, 0, 0, 0, 8]) + bytes(64),
            "its values are int32, not unsigned bytes: `python -m",
        ),
        (
            "train_images",
            b"\0\0\x0d\x01" + bytes([0, 0, 0, 1]) + bytes(4),
            "its values are float32, not unsigned bytes: `python -m",
        ),
        ("train_labels", b"PK\3\4", "not an IDX file: it begins with b'PK"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_remedy(fetched, role, content, why):
    status, said, _ = fetched({role: content})
    assert status == 1
    assert f"data.files.{role}: {role} is no such file as MNIST has: " in said
    assert why in said
    assert "Traceback" not in said


def test_labels_that_are_more_than_a_class_are_refused(fetched):
    status, said, _ = fetched({"test_labels": idx.serialise(np.zeros((2, 8), np.uint8))})
    assert status == 1
    assert "the test labels are (2, 8) for 2 images: there has to be one class for each" in said


def test_images_and_labels_are_kept_as_they_are(fetched):
    status, _, path = fetched()
    assert status == 0
    with artifacts.read(path) as file:
        for role, array in ARRAYS.items():
            assert np.array_equal(file[role.replace("_", "/")][()], array)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image_shape": [4, 3]}, "the train images are (5, 3, 4); data.image_shape is [4, 3]"),
        (
            {"classes": 2},
            "the train labels go up to 2; data.classes is 2, from 0 on: where labels begin with 1",
        ),
        ({"test_size": 3}, "there are 2 test images; data.test_size is 3"),
    ],
)
def test_what_the_configuration_says_otherwise_is_refused_in_a_line(fetched, changes, why):
    status, said, path = fetched(**changes)
    assert status == 1
    assert why in said
    assert "Traceback" not in said
    assert not path.exists()
