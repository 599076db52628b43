"""The program that gets the data set refuses one that is not as the configuration says."""

import hashlib
import json

import numpy as np
import pytest

from blindspots import artifacts, idx
from scripts import fetch

ARRAYS = {
    "train_images": np.zeros((5, 3, 4), np.uint8),
    "train_labels": np.array([0, 1, 2, 0, 1], np.uint8),
    "test_images": np.zeros((2, 3, 4), np.uint8),
    "test_labels": np.array([2, 0], np.uint8),
}
RIGHT = {"image_shape": [3, 4], "classes": 3, "train_size": 5, "test_size": 2}


@pytest.fixture
def fetched(tmp_path, monkeypatch, capfd):
    """Runs the program on files in a folder, and gives its exit status, what it said, and the artifact's path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = {role: idx.serialise(array) for role, array in ARRAYS.items()}
    for role, part in content.items():
        (tmp_path / role).write_bytes(part)
    files = {role: {"name": role, "sha256": hashlib.sha256(part).hexdigest()} for role, part in content.items()}

    def call(**changes):
        settings, sources = {"files": files} | RIGHT | changes, [{"kind": "folder", "path": str(tmp_path)}]
        words = ["--settings", json.dumps(settings), "--unrecorded", json.dumps({"sources": sources})]
        status = fetch.main(["--output", str(tmp_path / "data.h5"), *words])
        return status, capfd.readouterr().err, tmp_path / "data.h5"

    return call


def test_images_and_labels_are_kept_as_they_are(fetched):
    status, _, path = fetched()
    assert status == 0
    with artifacts.read(path) as file:
        for role, array in ARRAYS.items():
            assert np.array_equal(file[role.replace("_", "/")][()], array)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image_shape": [4, 3]}, "the train images are (5, 3, 4) with labels (5,); data.image_shape is [4, 3]"),
        ({"classes": 2}, "the train labels go up to 2; data.classes is 2"),
        ({"test_size": 3}, "there are 2 test images; data.test_size is 3"),
    ],
)
def test_what_the_configuration_says_otherwise_is_refused_in_a_line(fetched, changes, why):
    status, said, path = fetched(**changes)
    assert status == 1
    assert said.strip().endswith(why)
    assert "Traceback" not in said
    assert not path.exists()
