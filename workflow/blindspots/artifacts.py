"""HDF5 artifacts: written whole or not at all, sealed, and checked at every reading before HDF5 sees a byte.

An artifact's attributes are its provenance record. Its identity is a content hash over the datasets and the record
without its `VOLATILE` part (when, where and how fast), so that two runs of one step with the same inputs on the same
machine make the same identity. The seal is the SHA-256 of all of the file's bytes behind HDF5's user block, in that block:
damaged HDF5 can make the library that reads it hang or crash, so the seal is checked first.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

VOLATILE = frozenset({"git_commit", "git_dirty", "packages", "device", "cpu", "threads", "host", "started", "wall_seconds"})
_IDENTITY = "content_sha256"
_BLOCK = 512  # bytes of the user block, the smallest that HDF5 knows


class ArtifactError(Exception):
    """A file that is not a whole artifact; the message names it and the remedy."""


class Dataset(NamedTuple):
    """An array and what it means: axes, units, the formula for what is computed from it."""

    values: Any
    meaning: str


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, moved to `path` only when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f".{path.name}.*.tmp"):  # by a program that was killed
        abandoned.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    try:
        yield Path(name)
        _flush_to_disk(name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        _flush_to_disk(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write(path: Path, datasets: Mapping[str, Dataset], attributes: Mapping[str, Any]) -> None:
    """Write an artifact; a key like `a/b` makes a group. Attributes that are not plain numbers or text become JSON."""
    with whole_file(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=_BLOCK) as file:
            for name, (values, meaning) in datasets.items():
                file.create_dataset(name, data=np.asarray(values)).attrs["meaning"] = meaning
            for key, value in attributes.items():
                file.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)
            file.attrs[_IDENTITY] = content_hash(file)
        with open(temporary, "r+b") as raw:
            seal = _seal(raw)
            raw.seek(0)
            raw.write(seal)


@contextmanager
def read(path: Path) -> Iterator[h5py.File]:
    """The open HDF5 file, after its seal has been checked. Raises ArtifactError if a byte is not as it was written."""
    try:
        state = os.stat(path)
        whole = _is_whole(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}): delete it and run again") from error
    if not whole:
        raise ArtifactError(f"{path} is damaged, or not written by this workflow: delete it and run again")
    with h5py.File(path, "r") as file:
        yield file


def content_hash(file: h5py.File) -> str:
    """SHA-256 over every dataset (name, type, shape, bytes, attributes) and the record without its volatile part."""
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
    """What an input is known by: an artifact's content hash, any other file's SHA-256."""
    if Path(path).suffix == ".h5":
        with read(path) as file:
            return f"content:{file.attrs[_IDENTITY]}"
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@cache
def _is_whole(path: Path, *_state_of_the_file: int) -> bool:
    """Whether the seal fits; large files are read more than once, but while they stay the same checked only once."""
    with open(path, "rb") as raw:
        return raw.read(_BLOCK) == _seal(raw)


def _seal(raw: BinaryIO) -> bytes:
    """The user block that belongs to the bytes behind it."""
    raw.seek(_BLOCK)
    return f"blindspots artifact, SHA-256 {hashlib.file_digest(raw, 'sha256').hexdigest()}\n".encode().ljust(_BLOCK, b"\0")


def _plain(attributes: h5py.AttributeManager) -> dict:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in sorted(attributes.items())}


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
