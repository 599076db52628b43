"""The words that stand for many shards."""

from hypothesis import given
from hypothesis import strategies as st

from blindspots.steps.shards import collapsed, expanded

FOLDERS = st.sampled_from(["", "a/", "results/adversarial/test/M1/", "/of-2.h5/"])


@st.composite
def all_of(draw):
    """Some of the shards of a folder, most often all of them in their order."""
    folder, count = draw(FOLDERS), draw(st.integers(1, 12))
    shards = [f"{folder}{number}-of-{count}.h5" for number in range(1, count + 1)]
    return draw(st.just(shards) | st.lists(st.sampled_from(shards)))


PATHS = st.lists(all_of() | st.lists(st.from_regex(r"[\w/.-]{1,20}", fullmatch=True), max_size=3), max_size=6)


@given(PATHS)
def test_words_stand_for_exactly_the_paths_that_they_were_made_of(lists):
    paths = [path for some in lists for path in some]
    assert list(expanded(collapsed(paths))) == paths


def test_all_shards_of_a_folder_are_one_word_and_a_single_one_keeps_its_name():
    first = [f"a/M1/{number}-of-60000.h5" for number in range(1, 60_001)]
    assert collapsed([*first, "a/M2/1-of-1.h5"]) == ["a/M1/*-of-60000.h5", "a/M2/1-of-1.h5"]


def test_shards_of_which_one_is_missing_or_twice_there_are_named_one_by_one():
    for paths in (
        ["1-of-3.h5", "3-of-3.h5"],
        ["2-of-2.h5", "1-of-2.h5"],
        ["1-of-2.h5", "1-of-2.h5", "2-of-2.h5"],
    ):
        assert list(expanded(collapsed(paths))) == paths
    assert collapsed(["1-of-2.h5", "1-of-2.h5", "2-of-2.h5"]) == ["1-of-2.h5", "*-of-2.h5"]
