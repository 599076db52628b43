"""Disjoint, seeded parts of the training images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspots.data.splits import split


@st.composite
def partitions(draw):
    """A number of images, and ranges that follow each other from 0 to that number."""
    images = draw(st.integers(1, 200))
    inner = draw(st.sets(st.integers(1, images), max_size=5))
    edges = sorted({0, images} | inner)
    return images, {f"P{i}": edges[i : i + 2] for i in range(len(edges) - 1)}


@given(partitions(), st.integers(0, 2**32))
def test_parts_of_a_partition_are_disjoint_and_cover_all_images(partition, seed):
    images, parts = partition
    result = split(images, parts, seed)
    together = np.concatenate(list(result.values()))
    assert sorted(together.tolist()) == list(range(images))


@given(partitions(), st.integers(0, 100))
def test_each_part_has_its_size_and_is_sorted(partition, seed):
    images, parts = partition
    for name, indices in split(images, parts, seed).items():
        assert len(indices) == parts[name][1] - parts[name][0]
        assert np.all(np.diff(indices) > 0)


@given(partitions(), st.integers(0, 100))
def test_same_seed_gives_the_same_parts(partition, seed):
    first, second = split(*partition, seed), split(*partition, seed)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_parts():
    assert not np.array_equal(split(100, {"P": (0, 50)}, 0)["P"], split(100, {"P": (0, 50)}, 1)["P"])


def test_a_part_is_no_run_of_consecutive_images():
    # A split without shuffling would pass all the tests above but for this one.
    assert np.diff(split(1000, {"P": (0, 500)}, 0)["P"]).max() > 1


@given(partitions(), st.integers(0, 100), st.data())
def test_a_part_does_not_depend_on_the_other_parts(partition, seed, data):
    images, parts = partition
    name = data.draw(st.sampled_from(sorted(parts)))
    assert np.array_equal(split(images, parts, seed)[name], split(images, {name: parts[name]}, seed)[name])


@pytest.mark.parametrize(
    "part", [(-1, 5), (0, 11), (5, 5), (6, 4)], ids=["negative", "too large", "empty", "backwards"]
)
def test_a_range_that_the_images_do_not_cover_is_refused(part):
    with pytest.raises(ValueError, match=rf"split P = \[{part[0]}, {part[1]}\] is no range within 10 images"):
        split(10, {"P": part}, 0)


def test_overlapping_parts_are_refused_and_the_second_is_named():
    with pytest.raises(ValueError, match=r"split B = \[4, 8\] overlaps another"):
        split(10, {"A": (0, 5), "B": (4, 8)}, 0)
