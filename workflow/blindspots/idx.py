"""The IDX file format of MNIST and its relatives, plain or gzipped."""

import gzip
import hashlib
import math
import zlib

import numpy as np

_UNSIGNED_BYTE = 0x08
_OTHER_TYPES = {0x09: "signed bytes", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


def decompress(content: bytes) -> bytes:
    """The uncompressed content of an IDX file, whether gzipped or not. Raises ValueError for a damaged gzip stream."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged gzip stream: {error}") from error


def parse(content: bytes) -> np.ndarray:
    """An uncompressed IDX file's array of unsigned bytes.

    Layout: two zero bytes, the type (0x08), the number of dimensions, one big-endian uint32 for each, the values.
    Raises ValueError when the header or the length does not fit.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        kind = _OTHER_TYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
        remedy = f": its values are {kind}, save them as unsigned bytes" if kind else ""
        raise ValueError(f"not an IDX file of unsigned bytes: it begins with {content[:4]!r}{remedy}")
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start].ljust(start - 4, b"\0"), dtype=">u4"))
    if len(content) != start + math.prod(shape):
        raise ValueError(f"its header says {shape}, which needs {start + math.prod(shape)} bytes; it has {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def serialise(array: np.ndarray) -> bytes:
    """The uncompressed IDX file of an array of unsigned bytes: the inverse of `parse`."""
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim])
    return header + np.asarray(array.shape, dtype=">u4").tobytes() + array.astype(np.uint8).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
