"""HDF5 artifacts: written whole or not at all, closed over by a content hash, checked at every reading.

An artifact's attributes are its provenance record. Those in `VOLATILE` (when, where and how fast) are left out of the
content hash, so that two runs of one step with the same inputs on the same machine have the same content hash.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

VOLATILE = frozenset({"git_commit", "git_dirty", "packages", "device", "threads", "host", "started", "wall_seconds"})
_SEAL = "content_sha256"


class ArtifactError(Exception):
    """A file that is not a whole artifact; the message names it and the remedy."""


class Dataset(NamedTuple):
    """An array and what it means: axes, units, the formula for what is computed from it."""

    values: Any
    meaning: str


@contextmanager
def whole_file(path: Path):
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
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        for name, (values, meaning) in datasets.items():
            file.create_dataset(name, data=np.asarray(values)).attrs["meaning"] = meaning
        for key, value in attributes.items():
            file.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)
        file.attrs[_SEAL] = content_hash(file)


@contextmanager
def read(path: Path):
    """The open HDF5 file, after its content hash has been checked. Raises ArtifactError if it is not whole."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read as HDF5 ({error}): delete it and run again") from error
    with file:
        if file.attrs.get(_SEAL) != content_hash(file):
            raise ArtifactError(f"{path} does not match its own content hash: delete it and run again")
        yield file


def content_hash(file: h5py.File) -> str:
    """SHA-256 over every dataset (name, type, shape, bytes, attributes) and the record without its volatile part."""
    digest = hashlib.sha256()
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    for name in sorted(names):
        values = np.ascontiguousarray(file[name][()])
        header = [name, values.dtype.str, list(values.shape), _plain(file[name].attrs)]
        digest.update(json.dumps(header).encode())
        digest.update(values.data)
    record = {key: value for key, value in _plain(file.attrs).items() if key not in VOLATILE | {_SEAL}}
    digest.update(json.dumps(record, sort_keys=True).encode())
    return digest.hexdigest()


def file_identity(path: Path) -> str:
    """What an input is known by: an artifact's content hash, any other file's SHA-256."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return f"content:{file.attrs[_SEAL]}"
    return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


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
