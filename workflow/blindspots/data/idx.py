"""The IDX file format of MNIST and of similar image sets, plain or gzipped."""

import gzip
import hashlib
import math
import zlib

import numpy as np

_UNSIGNED_BYTE = 0x08
_TYPES = {_UNSIGNED_BYTE: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def decompress(content: bytes) -> bytes:
    """Return the uncompressed content of an IDX file.

    Args:
        content: The content of the file, gzipped or not.
    Returns:
        The uncompressed content.
    Raises:
        ValueError: If the gzip stream is damaged.
    """
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged gzip stream: {error}") from error


def parse(content: bytes) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Args:
        content: The uncompressed content of the file.
    Returns:
        The array, uint8.
    Raises:
        ValueError: As in `parse_any`, and if the values are of any other type.
    """
    array = parse_any(content)
    if array.dtype != np.uint8:
        raise ValueError(
            f"its values are {array.dtype.name}, not unsigned bytes: "
            "`python -m blindspots.own_data` makes such a file of it"
        )
    return array


def parse_any(content: bytes) -> np.ndarray:
    """Read an IDX file of any type.

    The file begins with two zero bytes, the type (0x08 for unsigned bytes) and the number of dimensions.
    One big-endian uint32 for each dimension follows, and then the values.

    Args:
        content: The uncompressed content of the file.
    Returns:
        The array, of the type that the header gives.
    Raises:
        ValueError: If the header or the length is wrong.
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
    """Write an array of unsigned bytes as an IDX file; the inverse of `parse`.

    Args:
        array: The array, with values from 0 to 255.
    Returns:
        The uncompressed content of the file.
    """
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim])
    return header + np.asarray(array.shape, dtype=">u4").tobytes() + array.astype(np.uint8).tobytes()


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
