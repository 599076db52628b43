"""The IDX format: what is written is read back, and nothing that is damaged is read."""

import contextlib
import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blindspots.data import idx

byte_arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))


@given(byte_arrays)
def test_round_trip_keeps_shape_and_values(array):
    parsed = idx.parse(idx.serialise(array))
    assert parsed.dtype == np.uint8
    assert parsed.shape == array.shape
    assert np.array_equal(parsed, array)


def test_layout_is_the_documented_one():
    # Written by hand from the format's description, so that parse and serialise cannot be wrong together.
    content = b"\x00\x00\x08\x02" + struct.pack(">II", 2, 3) + bytes([1, 2, 3, 4, 5, 255])
    assert idx.parse(content).tolist() == [[1, 2, 3], [4, 5, 255]]
    assert idx.serialise(np.array([[1, 2, 3], [4, 5, 255]], dtype=np.uint8)) == content


def test_sizes_are_big_endian():
    assert idx.parse(b"\x00\x00\x08\x01" + b"\x00\x00\x01\x00" + bytes(256)).shape == (256,)


def test_columns_of_a_transposed_array_are_written_in_its_own_order():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    assert np.array_equal(idx.parse(idx.serialise(array)), array)


@given(byte_arrays)
def test_gzipped_and_plain_content_are_the_same(array):
    content = idx.serialise(array)
    assert idx.decompress(gzip.compress(content)) == content
    assert idx.decompress(content) == content


@given(byte_arrays, st.data())
def test_truncated_content_is_refused(array, data):
    content = idx.serialise(array)
    kept = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError, match=r"not an IDX file|its header says"):
        idx.parse(content[:kept])


@given(byte_arrays, st.binary(min_size=1, max_size=20))
def test_trailing_bytes_are_refused(array, extra):
    with pytest.raises(ValueError, match="its header says"):
        idx.parse(idx.serialise(array) + extra)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\x00\x00\x08",
        b"\x01\x00\x08\x01",
        b"\x00\x01\x08\x01",
        b"\x00\x00\x0a\x01",
        b"<!DO",
        b"\x1f\x8b\x08\x00",
    ],
    ids=["empty", "short", "first byte", "second byte", "no type", "web page", "still gzipped"],
)
def test_wrong_header_is_refused_and_shown(start):
    with pytest.raises(ValueError, match="not an IDX file: it begins with") as error:
        idx.parse(start + (b"\x00\x00\x00\x01\x07" if len(start) == 4 else b""))
    assert repr(start) in str(error.value)


def test_message_for_a_wrong_length_says_what_is_needed_and_what_there_is():
    with pytest.raises(ValueError, match=r"\(3, 4\), which needs 24 bytes; it has 23"):
        idx.parse(idx.serialise(np.zeros((3, 4), dtype=np.uint8))[:-1])


def test_absurd_sizes_are_refused_without_being_allocated():
    with pytest.raises(ValueError, match="its header says"):
        idx.parse(b"\x00\x00\x08\x04" + b"\xff" * 16)


@given(st.integers(3, 60))
def test_truncated_gzip_is_refused(kept):
    whole = gzip.compress(np.random.default_rng(0).bytes(200))
    with pytest.raises(ValueError, match="damaged gzip stream"):
        idx.decompress(whole[:kept])


@given(st.data())
def test_damaged_gzip_data_is_refused(data):
    content = np.random.default_rng(0).bytes(200)
    whole = bytearray(gzip.compress(content))
    # After the ten bytes of the header: the compressed data, its checksum and its length.
    place = data.draw(st.integers(10, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    if place > 10:
        with pytest.raises(ValueError, match="damaged gzip stream"):
            idx.decompress(bytes(whole))
    else:
        # The first byte of a stored block has padding bits, which mean nothing.
        with contextlib.suppress(ValueError):
            assert idx.decompress(bytes(whole)) == content


def test_sha256_of_a_published_test_vector():
    assert idx.sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_every_type_of_the_format_is_read_and_only_bytes_are_taken_for_a_data_set(code, dtype):
    array = np.array([[1, 2, 3], [4, 5, 100]], dtype=f">{dtype}")
    content = bytes([0, 0, code, 2]) + struct.pack(">II", 2, 3) + array.tobytes()
    assert idx.parse_any(content).tolist() == array.tolist()
    if dtype == "u1":
        assert idx.parse(content).tolist() == array.tolist()
    else:
        with pytest.raises(ValueError, match=f"its values are {array.dtype.name}, not unsigned bytes"):
            idx.parse(content)
