"""The IDX file format of MNIST and its relatives, plain or gzipped."""

import gzip
import hashlib
import math
import zlib

import numpy as np

_UNSIGNED_BYTE = 0x08
_TYPES = {_UNSIGNED_BYTE: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def decompress(content: bytes) -> bytes:
    """The uncompressed content of an IDX file, whether gzipped or not. Raises ValueError for a damaged gzip stream."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged gzip stream: {error}") from error


def parse(content: bytes) -> np.ndarray:
    """An uncompressed IDX file's array of unsigned bytes. Raises ValueError as `parse_any`, and for any other type."""
    array = parse_any(content)
    if array.dtype != np.uint8:
        raise ValueError(
            f"its values are {array.dtype.name}, not unsigned bytes: `python -m blindspots.own_data` makes such a file of it"
        )
    return array


def parse_any(content: bytes) -> np.ndarray:
    """An uncompressed IDX file's array, of the type that its header says.

    Layout: two zero bytes, the type (0x08 for unsigned bytes), the number of dimensions, one big-endian uint32 for each, the
    values. Raises ValueError when the header or the length does not fit.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ValueError(f"not an IDX file: it begins with {content[:4]!r}")
    dtype = np.dtype(_TYPES[content[2]])
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start].ljust(start - 4, b"\0"), dtype=">u4"))
    due = start + math.prod(shape) * dtype.itemsize
    if len(content) != due:
        raise ValueError(f"its header says {shape}, which needs {due} bytes; it has {len(content)}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def serialise(array: np.ndarray) -> bytes:
    """The uncompressed IDX file of an array of unsigned bytes: the inverse of `parse`."""
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim])
    return header + np.asarray(array.shape, dtype=">u4").tobytes() + array.astype(np.uint8).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
