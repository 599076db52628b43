"""The files of an image set: ordered sources, one verification, and a cache for each user."""

import http.client
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from blindspots.data import idx

log = logging.getLogger(__name__)

TIMEOUT = 60  # the time that a source may stay silent, in seconds


class DownloadError(Exception):
    """A source could not give the files. The message gives the reason."""


def default_cache() -> Path:
    """Return the user's cache folder for this library."""
    return platformdirs.user_cache_path("blindspots")


def obtain(checksums: Mapping[str, str], sources: Sequence[Mapping], cache: Path) -> dict[str, bytes]:
    """Obtain the uncompressed content of every named file, verified.

    Args:
        checksums: The SHA-256 of each file's uncompressed content, by the file's name.
        sources: The sources in the order in which they are tried.
            Each is a mapping with a `kind` and the keys of that kind (see `KINDS`).
        cache: The folder that keeps verified files under their SHA-256, so that no file is obtained twice.
    Returns:
        The content of each file, by its name.
    Raises:
        DownloadError: If no source has the files. The message gives the reason for each source.
    """
    content = {name: _from_cache(cache / digest, digest) for name, digest in checksums.items()}
    reasons = []
    for source in sources:
        missing = [name for name, value in content.items() if value is None]
        if not missing:
            break
        label = " ".join(
            [
                source["kind"],
                *(str(value) for key, value in source.items() if value and key not in ("kind", "suffix")),
            ]
        )
        problems = []
        try:
            for name, found in KINDS[source["kind"]](source, missing):
                try:
                    content[name] = _verified(name, found, checksums)
                    _to_cache(cache / checksums[name], content[name])
                except DownloadError as error:
                    problems.append(str(error))
        except DownloadError as error:
            problems.append(str(error))
        obtained = [name for name in missing if content[name] is not None]
        if obtained:
            log.info("%s: obtained %s", label, ", ".join(obtained))
        if problems:
            reasons.append(f"{label}: {', '.join(problems)}")
            log.warning("source %s", reasons[-1])
    missing = [name for name, value in content.items() if value is None]
    if missing:
        raise DownloadError(
            f"no source has {', '.join(missing)} ({'; '.join(reasons) or 'none is configured'}). "
            "Put the files, plain or gzipped, into a folder and name it as the first of the sources "
            "in the configuration or in the environment variable given there"
        )
    return content


def from_folder(source: Mapping, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Read files from a local folder, plain or gzipped.

    Args:
        source: A mapping with the folder's `path`.
            Without a path, the environment variable named by `variable` gives it.
        names: The names of the files.
    Yields:
        The name and the content of each file that is present.
    Raises:
        DownloadError: If there is no such folder, or if a file is missing or cannot be read.
    """
    path = source.get("path") or os.environ.get(source.get("variable") or "")
    if not path:
        raise DownloadError(
            f"not set (neither its path nor the environment variable {source.get('variable')})"
        )
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DownloadError(f"{folder} is not a folder, seen from {Path.cwd()}")
    present = [name for name in names if (folder / name).is_file() or (folder / f"{name}.gz").is_file()]
    for name in present:
        yield name, _read_either(folder, name)
    if len(present) < len(names):
        missing = ", ".join(name for name in names if name not in present)
        raise DownloadError(f"{folder} lacks {missing}, plain and gzipped")


def from_mirror(source: Mapping, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Download files from a web server, as from the public mirrors of MNIST.

    Args:
        source: A mapping with the folder's `url`, and the `suffix` that the server adds to each name.
            The suffix of a gzipped file is ".gz", and that of a plain file is empty.
        names: The names of the files.
    Yields:
        The name and the content of each file.
    Raises:
        DownloadError: If a download fails.
    """
    for name in names:
        url = f"{source['url'].rstrip('/')}/{name}{source['suffix']}"
        log.info("downloading %s", url)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                found = response.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(f"{url}: {_one_line(error)}") from error
        yield name, found


def from_npm(source: Mapping, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Download an npm package and read files from it, with the npm client's own configuration.

    Args:
        source: A mapping with the `package`, its `version`, and the `folder` of the files in it.
        names: The names of the files.
    Yields:
        The name and the content of each file.
    Raises:
        DownloadError: If the client fails, or if the package lacks a file or is damaged.
    """
    specification = f"{source['package']}@{source['version']}"
    command = ["npm", "pack", specification, "--json", "--ignore-scripts", "--pack-destination"]
    with _packed("npm pack", specification, command, "*.tgz", _npm_reason) as path:
        try:
            with tarfile.open(path) as archive:
                found = [(name, archive.extractfile(f"{source['folder']}/{name}").read()) for name in names]
        except (KeyError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DownloadError(f"{specification} lacks a file or is damaged: {_one_line(error)}") from error
    yield from found


def from_pypi(source: Mapping, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Download the wheel of a PyPI package and read files from it, with pip's own configuration.

    Args:
        source: A mapping with the `package`, its `version`, and the `folder` of the files in it.
        names: The names of the files.
    Yields:
        The name and the content of each file.
    Raises:
        DownloadError: If pip fails, or if the package lacks a file or is damaged.
    """
    specification = f"{source['package']}=={source['version']}"
    command = [sys.executable, "-m", "pip", "download", specification, "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest"]
    with _packed("pip download", specification, command, "*.whl", _last_line) as path:
        try:
            with zipfile.ZipFile(path) as archive:
                found = [(name, archive.read(f"{source['folder']}/{name}")) for name in names]
        except (KeyError, OSError, zlib.error, zipfile.BadZipFile) as error:
            raise DownloadError(f"{specification} lacks a file or is damaged: {_one_line(error)}") from error
    yield from found


@contextmanager
def _packed(
    what: str,
    specification: str,
    command: Sequence[str],
    pattern: str,
    reason: Callable[[subprocess.CompletedProcess], str],
) -> Iterator[Path]:
    """Run a package manager's command and yield the path of the one archive that it downloads.

    The path of the download folder is added to the command.
    """
    log.info("%s %s", what, specification)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run = subprocess.run(
                [*command, scratch], capture_output=True, text=True, timeout=10 * TIMEOUT, cwd=scratch
            )
        except FileNotFoundError as error:
            raise DownloadError(f"the {command[0]} client is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise DownloadError(f"{what} gave no answer in {10 * TIMEOUT} s") from error
        archives = list(Path(scratch).glob(pattern))
        if run.returncode or len(archives) != 1:
            raise DownloadError(f"{what} {specification} failed: {reason(run)}")
        yield archives[0]


KINDS: dict[str, Callable[[Mapping, Sequence[str]], Iterator[tuple[str, bytes]]]] = {
    "folder": from_folder,
    "mirror": from_mirror,
    "npm": from_npm,
    "pypi": from_pypi,
}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _npm_reason(run: subprocess.CompletedProcess) -> str:
    try:
        return json.loads(run.stdout)["error"]["summary"].strip()
    except (ValueError, KeyError, TypeError):
        return _last_line(run)


def _last_line(run: subprocess.CompletedProcess) -> str:
    return (run.stderr.strip() or f"exit status {run.returncode}").splitlines()[-1]


def _read_either(folder: Path, name: str) -> bytes:
    path = folder / name if (folder / name).is_file() else folder / f"{name}.gz"
    try:
        return path.read_bytes()
    except OSError as error:
        raise DownloadError(f"{path} cannot be read: {error}") from error


def _verified(name: str, content: bytes, checksums: Mapping[str, str]) -> bytes:
    try:
        content = idx.decompress(content)
    except ValueError as error:
        raise DownloadError(f"{name}: {error}") from error
    digest = idx.sha256(content)
    if digest != checksums[name]:
        others = [other for other, expected in checksums.items() if expected == digest]
        mistaken = f", which is {others[0]} under a wrong name" if others else ""
        raise DownloadError(f"{name} has SHA-256 {digest}{mistaken}, not {checksums[name]}")
    return content


def _from_cache(path: Path, digest: str) -> bytes | None:
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        if idx.sha256(content) == digest:
            return content
        path.unlink()
        log.warning("the cached file %s is damaged: removed", path)
    except OSError as error:
        log.warning("the cached file %s is of no use: %s", path, error)
    return None


def _to_cache(path: Path, content: bytes) -> None:
    """Store a file in the cache, either whole or not at all.

    If the cache cannot be written, a later run must download again, but this run goes on.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        log.warning("cannot keep %s in the cache: %s", path.name, error)
