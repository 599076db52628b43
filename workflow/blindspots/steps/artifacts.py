"""HDF5 artifacts, which are written completely or not at all, and are checked at every reading.

An artifact's attributes are its provenance record. Its identity is a content hash over the arrays and the
record. The hash leaves out the record's `VOLATILE` part: when, where and how fast the artifact was made. So
two runs of one step with the same inputs on the same machine have the same identity.

The seal is the SHA-256 of all bytes after HDF5's user block. It stands in that block. Damaged HDF5 can make
the library that reads it hang or crash. Therefore the seal is checked before HDF5 reads a byte.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

VOLATILE = frozenset(
    {"git_commit", "git_dirty", "packages", "device", "cpu", "threads", "host", "started", "wall_seconds"}
)
_IDENTITY = "content_sha256"
_BLOCK = 512  # bytes of the user block; HDF5 allows no smaller one


class ArtifactError(Exception):
    """A file is not a complete artifact, or it cannot be written.

    The message names the file and the remedy.
    """


class Array(NamedTuple):
    """An array with its meaning.

    Attributes:
        values: The array, or what NumPy makes an array of, of any shape.
        meaning: The axes, the units, and the formula for what is computed from it.
    """

    values: Any
    meaning: str


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, and move the file to `path` at the end.

    The file is moved only if the block ends without an error. Otherwise the temporary file is deleted.

    Args:
        path: The file to be written. Its folder is created if it is missing.
    Yields:
        The temporary path.
    Raises:
        ArtifactError: If the file cannot be written, as on a full disk or a read-only one.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(f".{path.name}.*.tmp"):  # A killed program leaves one.
            abandoned.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        _flush_to_disk(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _flush_to_disk(path.parent)
    except BaseException as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ArtifactError(
                f"{path} cannot be written ({error.strerror or error}): run again when it can"
            ) from error
        raise


def write(path: Path, arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
    """Write an artifact.

    HDF5 assembles the file in memory, for two reasons. Its own errors on a full disk are many, and a shared
    file system is fast for one large write.

    Args:
        path: The file to be written.
        arrays: The arrays by name. A name like `a/b` makes a group.
        attributes: The provenance record. Text, floats and integers of 64 bits are stored as they are; all
            other values become JSON.
    Raises:
        ArtifactError: If the file cannot be written, or HDF5 cannot store one of the texts.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=_BLOCK) as file:
        for name, (values, meaning) in arrays.items():
            _check_text(path, f"{name}'s meaning", meaning)
            file.create_dataset(name, data=np.asarray(values)).attrs["meaning"] = meaning
        for key, value in attributes.items():
            _check_text(path, key, value)
            plain = isinstance(value, str | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
            file.attrs[key] = value if plain else json.dumps(value)
        file.attrs[_IDENTITY] = content_hash(file)
    content = image.getbuffer()
    content[:_BLOCK] = _seal(hashlib.sha256(content[_BLOCK:]))
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _check_text(path: Path, what: str, value: Any) -> None:
    """Raise ArtifactError for a text that HDF5 cannot store."""
    if isinstance(value, str) and "\0" in value:
        raise ArtifactError(
            f"{path} cannot be written: its {what} has a NUL, which a text in HDF5 cannot have"
        )
    if isinstance(value, str) and not value.isascii() and value.encode(errors="replace").decode() != value:
        raise ArtifactError(f"{path} cannot be written: its {what} is no text in UTF-8: {value!r}")


@contextmanager
def read(path: Path) -> Iterator[h5py.File]:
    """Open an artifact after its seal has been checked.

    Args:
        path: The artifact.
    Yields:
        The open HDF5 file.
    Raises:
        ArtifactError: If the file cannot be read, or a byte differs from what was written.
    """
    try:
        state = os.stat(path)
        whole = _is_whole(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}): delete it and run again") from error
    if not whole:
        raise ArtifactError(f"{path} is damaged, or not written by this workflow: delete it and run again")
    # An artifact never changes, and some shared file systems have no locks.
    with h5py.File(path, "r", locking=False) as file:
        yield file


def content_hash(file: h5py.File) -> str:
    """Compute an artifact's content hash.

    The hash covers every array: its name, type, shape, bytes and attributes. It also covers the record
    without its volatile part.

    Args:
        file: The open HDF5 file.
    Returns:
        The SHA-256, in hexadecimal digits.
    """
    digest = hashlib.sha256()
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    for name in sorted(names):
        values = np.asarray(file[name][()], order="C")
        header = [name, values.dtype.str, list(values.shape), _plain(file[name].attrs)]
        digest.update(json.dumps(header).encode())
        digest.update(np.atleast_1d(values).view(np.uint8).data)
    record = {key: value for key, value in _plain(file.attrs).items() if key not in VOLATILE | {_IDENTITY}}
    digest.update(json.dumps(record, sort_keys=True).encode())
    return digest.hexdigest()


def identity(path: Path) -> str:
    """Return the identity of an input file.

    Args:
        path: An artifact, whose name ends in .h5, or any other file.
    Returns:
        `content:` with the artifact's content hash, or `sha256:` with the SHA-256 of another file.
    Raises:
        ArtifactError: If an artifact cannot be read or is damaged.
    """
    if Path(path).suffix == ".h5":
        with read(path) as file:
            return f"content:{file.attrs[_IDENTITY]}"
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@cache
def _is_whole(path: Path, *_state_of_the_file: int) -> bool:
    """Check the seal. A file is read more than once, but checked once while its state stays the same."""
    with open(path, "rb") as raw:
        return raw.read(_BLOCK) == _seal(hashlib.file_digest(raw, "sha256"))


def _seal(digest: "hashlib._Hash") -> bytes:
    """Return the user block for the SHA-256 of the bytes after it."""
    return f"blindspots artifact, SHA-256 {digest.hexdigest()}\n".encode().ljust(_BLOCK, b"\0")


def _plain(attributes: h5py.AttributeManager) -> dict:
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in sorted(attributes.items())
    }


def _flush_to_disk(path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
