"""Artifacts: whole or not there at all, and noticed when they are damaged."""

import json
import os
import shutil
import stat

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blindspots.steps import artifacts
from blindspots.steps.artifacts import Array, ArtifactError

DATASETS = {
    "images": Array(np.arange(24, dtype=np.float32).reshape(2, 3, 4), "(n, height, width) pixels"),
    "history/loss": Array([3.5, 2.25], "(iterations,) loss"),
    "history/steps": Array(np.array([1, 2], dtype=np.int64), "(iterations,) steps"),
    "success": Array(np.array([True, False]), "(n,) found"),
    "inputs": Array(784, "pixels of an image"),
}
ATTRIBUTES = {
    "program": "scripts.some",
    "settings": {"a": [1, 2.5, None]},
    "code": "abc",
    "host": "here",
    "wall_seconds": 1.5,
}


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**200])
def test_whole_numbers_of_any_size_are_kept(tmp_path, value):
    artifacts.write(tmp_path / "some.h5", DATASETS, {"number": value})
    with artifacts.read(tmp_path / "some.h5") as file:
        assert int(file.attrs["number"]) == value


def test_a_text_that_hdf5_cannot_have_is_refused_with_its_name(tmp_path):
    with pytest.raises(ArtifactError, match=r"some\.h5 cannot be written: its note has a NUL"):
        artifacts.write(tmp_path / "some.h5", DATASETS, {"note": "a\0b"})
    with pytest.raises(ArtifactError, match=r"its note is no text in UTF-8"):
        artifacts.write(tmp_path / "some.h5", DATASETS, {"note": "a\udcff"})
    with pytest.raises(ArtifactError, match=r"its odd's meaning has a NUL"):
        artifacts.write(tmp_path / "some.h5", DATASETS | {"odd": Array(1, "a\0b")}, {})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def path(tmp_path):
    artifacts.write(tmp_path / "some.h5", DATASETS, ATTRIBUTES)
    return tmp_path / "some.h5"


def content_hash(path):
    """The hash of what the file holds now, whatever it says of itself."""
    with h5py.File(path, "r") as file:
        return artifacts.content_hash(file)


def others(path):
    return [entry.name for entry in path.parent.iterdir() if entry != path]


# Round trip


def test_datasets_come_back_with_type_shape_values_and_meaning(path):
    with artifacts.read(path) as file:
        for name, (values, meaning) in DATASETS.items():
            stored = file[name][()]
            assert np.array_equal(stored, values)
            assert np.shape(stored) == np.shape(values)
            assert stored.dtype == np.asarray(values).dtype
            assert file[name].attrs["meaning"] == meaning


def test_attributes_come_back_and_structures_are_json(path):
    with artifacts.read(path) as file:
        assert file.attrs["program"] == "scripts.some"
        assert file.attrs["wall_seconds"] == 1.5
        assert json.loads(file.attrs["settings"]) == {"a": [1, 2.5, None]}


arrays = hnp.arrays(
    st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=40)
@given(array=arrays)
def test_any_array_comes_back_with_the_same_bytes(tmp_path_factory, array):
    path = tmp_path_factory.getbasetemp() / "any.h5"
    artifacts.write(path, {"group/values": Array(array, "anything")}, {})
    with artifacts.read(path) as file:
        stored = file["group/values"][()]
        assert np.asarray(stored).dtype == array.dtype
        assert np.shape(stored) == array.shape
        assert np.asarray(stored).tobytes() == array.tobytes()


def test_folders_are_made(tmp_path):
    artifacts.write(tmp_path / "a" / "b" / "some.h5", DATASETS, {})
    assert (tmp_path / "a" / "b" / "some.h5").is_file()


def test_permissions_follow_the_umask(tmp_path):
    # A temporary file is private; an artifact is as readable as any other new file.
    before = os.umask(0o027)
    try:
        artifacts.write(tmp_path / "some.h5", DATASETS, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "some.h5").stat().st_mode) == 0o640


# Whole or not at all


class Interrupted(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def write_half(path, error):
    with artifacts.whole_file(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_an_error_while_writing_leaves_nothing(tmp_path, error):
    path = tmp_path / "some.txt"
    with pytest.raises(error):
        write_half(path, error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_an_error_while_writing_keeps_the_older_file(tmp_path, error):
    path = tmp_path / "some.txt"
    path.write_text("older")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "older"
    assert others(path) == []


def test_while_it_is_written_the_path_does_not_exist(tmp_path):
    path = tmp_path / "some.txt"
    with artifacts.whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # else the move at the end would not be atomic
    assert path.read_text() == "half"
    assert others(path) == []


def test_what_a_killed_program_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".some.h5.k3x9_a.tmp").write_text("half")
    kept = {".other.h5.k3x9_a.tmp", "some.h5.tmp", ".some.h5"}
    for name in kept:
        (tmp_path / name).write_text("of someone else")
    artifacts.write(tmp_path / "some.h5", DATASETS, {})
    assert {path.name for path in tmp_path.iterdir()} == kept | {"some.h5"}


def test_an_artifact_that_cannot_be_written_leaves_the_older_one(path):
    before = path.read_bytes()
    with pytest.raises(TypeError):
        artifacts.write(path, DATASETS | {"odd": Array(object(), "HDF5 has no such type")}, ATTRIBUTES)
    assert path.read_bytes() == before
    assert others(path) == []


def test_a_failing_move_leaves_no_temporary_file(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ArtifactError, match=r"some\.h5 cannot be written \(No space left on device\)"):
        artifacts.write(tmp_path / "some.h5", DATASETS, {})
    assert list(tmp_path.iterdir()) == []


def test_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("sync"), sync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("move"), replace(*paths)))
    artifacts.write(tmp_path / "some.h5", DATASETS, {})
    assert events[0] == "sync"
    assert "move" in events


# Damage


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small artifact to be damaged, and its bytes."""
    path = tmp_path_factory.mktemp("small") / "some.h5"
    artifacts.write(path, {"a": Array(np.arange(5.0), "five")}, {"program": "scripts.some", "host": "here"})
    return path, path.read_bytes()


def test_damage_in_any_byte_is_noticed(small):
    # Among them bytes on which HDF5 itself would hang or crash, and those of the volatile attributes.
    path, whole = small
    damaged = path.with_name("damaged.h5")
    for place in range(len(whole)):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"damaged\.h5 is damaged"), artifacts.read(damaged):
            pass


@given(data=st.data())
def test_a_truncated_file_is_an_artifact_error_in_one_line(small, data):
    path, whole = small
    short = path.with_name("short.h5")
    short.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ArtifactError) as error, artifacts.read(short):
        pass
    assert str(short) in str(error.value)
    assert "delete it and run again" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not HDF5", None], ids=["empty", "text", "missing"])
def test_what_is_no_hdf5_is_an_artifact_error(tmp_path, content):
    path = tmp_path / "some.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"some\.h5 (cannot be read|is damaged)"), artifacts.read(path):
        pass


def test_an_hdf5_file_without_a_seal_is_no_artifact(tmp_path):
    path = tmp_path / "some.h5"
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(ArtifactError, match="not written by this workflow"), artifacts.read(path):
        pass


def test_errors_of_the_reader_itself_pass_through(path):
    with pytest.raises(ZeroDivisionError), artifacts.read(path):
        raise ZeroDivisionError


def test_an_artifact_is_read_only(path):
    with artifacts.read(path) as file, pytest.raises((OSError, ValueError, KeyError)):
        file["new"] = 1
    with artifacts.read(path) as file:
        assert "new" not in file


# The content hash


def test_the_record_names_the_content(path):
    with artifacts.read(path) as file:
        assert file.attrs["content_sha256"] == artifacts.content_hash(file)


@pytest.mark.parametrize("name", sorted(artifacts.VOLATILE))
def test_volatile_attributes_do_not_enter_the_content_hash(path, name):
    before = content_hash(path)
    with h5py.File(path, "a") as file:
        file.attrs[name] = "another"
    assert content_hash(path) == before


@pytest.mark.parametrize("name", ["program", "settings", "inputs", "code", "code_modules", "something new"])
def test_every_other_attribute_enters_the_content_hash(path, name):
    before = content_hash(path)
    with h5py.File(path, "a") as file:
        file.attrs[name] = "another"
    assert content_hash(path) != before


def test_a_removed_attribute_changes_the_content_hash(path):
    before = content_hash(path)
    with h5py.File(path, "a") as file:
        del file.attrs["code"]
    assert content_hash(path) != before


def edit(change):
    def apply(path):
        with h5py.File(path, "a") as file:
            change(file)

    return apply


def set_value(file):
    file["images"][0, 0, 0] = 7


def rename(file):
    file.move("images", "pictures")


def retype(file):
    values = file["images"][()]
    del file["images"]
    file.create_dataset("images", data=values.astype(np.float64)).attrs["meaning"] = DATASETS[
        "images"
    ].meaning


def reshape(file):
    values = file["images"][()]
    del file["images"]
    file.create_dataset("images", data=values.reshape(2, 12)).attrs["meaning"] = DATASETS["images"].meaning


def make_scalar_a_vector(file):
    values = file["inputs"][()]
    del file["inputs"]
    file.create_dataset("inputs", data=[values]).attrs["meaning"] = DATASETS["inputs"].meaning


def other_meaning(file):
    file["images"].attrs["meaning"] = "another"


def remove(file):
    del file["history/loss"]


def add(file):
    file["history/more"] = 1


@pytest.mark.parametrize(
    "change",
    [set_value, rename, retype, reshape, make_scalar_a_vector, other_meaning, remove, add],
    ids=lambda f: f.__name__,
)
def test_every_change_of_a_dataset_changes_the_content_hash(path, change):
    before = content_hash(path)
    edit(change)(path)
    assert content_hash(path) != before


def test_the_order_of_writing_does_not_matter(tmp_path):
    artifacts.write(tmp_path / "a.h5", DATASETS, ATTRIBUTES)
    artifacts.write(tmp_path / "b.h5", dict(reversed(DATASETS.items())), dict(reversed(ATTRIBUTES.items())))
    assert content_hash(tmp_path / "a.h5") == content_hash(tmp_path / "b.h5")


# Identity


def test_identity_of_an_artifact_is_its_content_whatever_is_volatile(path, tmp_path):
    artifacts.write(tmp_path / "again.h5", DATASETS, ATTRIBUTES | {"host": "elsewhere"})
    assert artifacts.identity(path) == f"content:{content_hash(path)}"
    assert artifacts.identity(tmp_path / "again.h5") == artifacts.identity(path)


def test_identity_of_another_file_is_its_sha256(tmp_path):
    (tmp_path / "some.csv").write_bytes(b"abc")
    wanted = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert artifacts.identity(tmp_path / "some.csv") == wanted


def test_an_hdf5_file_that_is_no_artifact_has_no_identity(tmp_path):
    path = tmp_path / "some.h5"
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(ArtifactError, match=r"some\.h5"):
        artifacts.identity(path)


def test_identity_does_not_depend_on_the_place(path, tmp_path):
    shutil.copy(path, tmp_path / "copy.h5")
    assert artifacts.identity(tmp_path / "copy.h5") == artifacts.identity(path)
