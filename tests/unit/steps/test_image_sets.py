"""Images from the data artifact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspots.steps import artifacts, image_sets
from blindspots.steps.artifacts import Array, ArtifactError
from blindspots.steps.step import StepError

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 4, 5), dtype=np.uint8) for n in (12, 7))


@pytest.fixture
def data(tmp_path):
    arrays = {
        "train/images": TRAIN,
        "test/images": TEST,
        "train/labels": np.arange(12) % 10,
        "test/labels": np.arange(7),
    }
    artifacts.write(
        tmp_path / "data.h5", {k: Array(v.astype(np.uint8), "some") for k, v in arrays.items()}, {}
    )
    return tmp_path / "data.h5"


def test_pixels_are_single_precision_from_zero_to_one(data):
    pixels, labels = image_sets.read(data, "test")
    assert pixels.dtype == np.float32
    assert np.array_equal(np.rint(pixels * 255), TEST)
    assert pixels.max() <= 1
    assert labels.tolist() == list(range(7))


def test_indices_choose_images_and_their_labels_in_order(data):
    pixels, labels = image_sets.read(data, "train", np.array([11, 0, 3]))
    assert np.array_equal(np.rint(pixels * 255), TRAIN[[11, 0, 3]])
    assert labels.tolist() == [1, 0, 3]


@pytest.mark.parametrize("index", [[], [2, 0]])
def test_photographs_are_read_by_their_indices_and_may_be_none(tmp_path, index):
    photographs = RNG.integers(0, 256, (3, 3, 4, 5), dtype=np.uint8)
    arrays = {"pictures/images": Array(photographs, "some"), "pictures/labels": Array(np.arange(3), "some")}
    artifacts.write(tmp_path / "pictures.h5", arrays, {})
    pixels, labels = image_sets.read(tmp_path / "pictures.h5", "pictures", np.array(index, int))
    assert np.array_equal(np.rint(pixels * 255), photographs[np.array(index, int)])
    assert labels.tolist() == index


def test_a_split_is_read_by_name_and_train_is_all(tmp_path, data):
    artifacts.write(tmp_path / "splits.h5", {"P1": Array(np.array([2, 5]), "indices")}, {})
    assert image_sets.read_split(tmp_path / "splits.h5", "P1").tolist() == [2, 5]
    assert (
        len(image_sets.read(data, "train", image_sets.read_split(tmp_path / "splits.h5", "train")).labels)
        == 12
    )


def test_a_damaged_data_file_is_refused(data):
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(ArtifactError):
        image_sets.read(data, "train")


@given(images=st.integers(1, 300), seed=st.integers(0, 1000), part=st.data())
def test_a_sample_is_sorted_distinct_in_range_and_seeded(images, seed, part):
    size = part.draw(st.integers(1, images))
    chosen = image_sets.sample(images, size, seed)
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < images
    assert np.array_equal(chosen, image_sets.sample(images, size, seed))


def test_a_sample_is_random():
    assert not np.array_equal(image_sets.sample(1000, 50, 0), image_sets.sample(1000, 50, 1))
    assert image_sets.sample(1000, 50, 0).max() > 500  # not the first ones


def test_all_is_every_image_in_order():
    assert image_sets.sample(5, "all", 3).tolist() == [0, 1, 2, 3, 4]


def test_a_sample_larger_than_the_set_is_all_of_it():
    assert image_sets.sample(7, 8, 0).tolist() == list(range(7))


@given(total=st.integers(1, 60), more=st.integers(0, 140), pixels=st.sampled_from([(), (2,), (2, 3)]))
def test_shards_are_nearly_equal_parts_that_make_the_whole_in_order(total, more, pixels):
    images = total + more
    values = np.random.default_rng(images).random((images, *pixels), dtype=np.float32)
    parts = [image_sets.shard(values, f"{number}-of-{total}") for number in range(1, total + 1)]
    assert np.array_equal(np.concatenate(parts), values)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(part.dtype == values.dtype and part.shape[1:] == pixels for part in parts)


def test_shards_without_images_are_refused():
    with pytest.raises(StepError, match=r"3 images do not make 4 shards: raise attack\.images_per_job"):
        image_sets.shard(np.arange(3), "1-of-4")


def test_shards_are_named_from_one():
    assert image_sets.shard(np.arange(7), "1-of-3").tolist() == [0, 1, 2]
    assert image_sets.shard(np.arange(7), "2-of-3").tolist() == [3, 4]
    assert image_sets.shard(np.arange(7), "3-of-3").tolist() == [5, 6]
    assert image_sets.shard(np.arange(24), "12-of-12").tolist() == [22, 23]
    with pytest.raises(IndexError):
        image_sets.shard(np.arange(7), "4-of-3")
