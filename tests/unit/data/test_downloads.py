"""Where the data come from: the order of sources, verification, and the cache."""

import gzip
import hashlib
import http.server
import io
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from blindspots.data import downloads, idx
from blindspots.data.downloads import DownloadError, obtain

NAMES = ("train-images", "train-labels", "test-images", "test-labels")
CONTENT = {
    name: idx.serialise(np.random.default_rng(number).integers(0, 256, (3 + number, 4), dtype=np.uint8))
    for number, name in enumerate(NAMES)
}
CHECKSUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


def folder_of(path, files=CONTENT, gzipped=False):
    """A source, and the folder with the files that it gives."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / (f"{name}.gz" if gzipped else name)).write_bytes(
            gzip.compress(content) if gzipped else content
        )
    return {"kind": "folder", "path": str(path)}


def cached(cache):
    return {path.name for path in cache.iterdir()} if cache.exists() else set()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "below"


@pytest.fixture
def count(monkeypatch):
    """A kind of source that gives the files and records what it was asked for."""
    asked = []

    def give(source, names):
        asked.append(sorted(names))
        return ((name, CONTENT[name]) for name in names)

    monkeypatch.setitem(downloads.KINDS, "counted", give)
    return asked


# Folders


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzipped"])
def test_a_folder_gives_the_uncompressed_content(tmp_path, cache, gzipped):
    assert obtain(CHECKSUMS, [folder_of(tmp_path / "data", gzipped=gzipped)], cache) == CONTENT


def test_a_folder_may_mix_plain_and_gzipped_files(tmp_path, cache):
    source = folder_of(tmp_path / "data", {name: CONTENT[name] for name in NAMES[:2]})
    folder_of(tmp_path / "data", {name: CONTENT[name] for name in NAMES[2:]}, gzipped=True)
    assert obtain(CHECKSUMS, [source], cache) == CONTENT


def test_the_environment_variable_names_a_folder(tmp_path, cache, monkeypatch):
    folder_of(tmp_path / "data")
    monkeypatch.setenv("SOME_DATA", str(tmp_path / "data"))
    assert obtain(CHECKSUMS, [{"kind": "folder", "path": None, "variable": "SOME_DATA"}], cache) == CONTENT


def test_a_path_goes_before_the_environment_variable(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("SOME_DATA", str(tmp_path / "nowhere"))
    source = folder_of(tmp_path / "data") | {"variable": "SOME_DATA"}
    assert obtain(CHECKSUMS, [source], cache) == CONTENT


def test_a_path_may_begin_with_the_home_folder(tmp_path, cache, monkeypatch):
    folder_of(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert obtain(CHECKSUMS, [{"kind": "folder", "path": "~/data"}], cache) == CONTENT


def test_an_unset_folder_is_a_reason_that_names_its_variable(cache, monkeypatch):
    monkeypatch.delenv("SOME_DATA", raising=False)
    with pytest.raises(DownloadError, match=r"not set .*SOME_DATA"):
        obtain(CHECKSUMS, [{"kind": "folder", "path": None, "variable": "SOME_DATA"}], cache)


def test_a_path_that_is_no_folder_is_a_reason(tmp_path, cache):
    with pytest.raises(DownloadError, match="nowhere is not a folder"):
        obtain(CHECKSUMS, [{"kind": "folder", "path": str(tmp_path / "nowhere")}], cache)


def test_two_folders_that_hold_all_files_together_are_enough(tmp_path, cache):
    one = folder_of(tmp_path / "one", {name: CONTENT[name] for name in NAMES[:2]})
    corrupt = {NAMES[0]: b"corrupt", **{name: CONTENT[name] for name in NAMES[2:]}}
    assert obtain(CHECKSUMS, [one, folder_of(tmp_path / "other", corrupt)], cache) == CONTENT


def test_a_partial_folder_names_what_it_lacks_and_the_next_source_is_asked(tmp_path, cache, caplog):
    partial = folder_of(tmp_path / "partial", {name: CONTENT[name] for name in NAMES[:3]})
    assert obtain(CHECKSUMS, [partial, folder_of(tmp_path / "whole")], cache) == CONTENT
    assert "lacks test-labels, plain and gzipped" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that fails when it is read")
def test_a_folder_whose_file_cannot_be_read_moves_on_to_the_next(tmp_path, cache):
    broken = folder_of(tmp_path / "broken", {name: CONTENT[name] for name in NAMES[1:]})
    # Reading it is an input/output error, as from a failing disk or without permission, also for root.
    (tmp_path / "broken" / NAMES[0]).symlink_to("/proc/self/mem")
    assert obtain(CHECKSUMS, [broken, folder_of(tmp_path / "whole")], cache) == CONTENT


# Order, failures and messages


def test_sources_are_asked_in_order_and_not_after_everything_was_found(tmp_path, cache, count):
    obtain(CHECKSUMS, [folder_of(tmp_path / "data"), {"kind": "counted"}], cache)
    assert count == []
    shutil.rmtree(cache)
    obtain(CHECKSUMS, [{"kind": "counted"}, folder_of(tmp_path / "data")], cache)
    assert count == [sorted(NAMES)]


def test_a_failing_source_is_logged_with_its_reason(tmp_path, cache, caplog):
    obtain(
        CHECKSUMS,
        [{"kind": "folder", "path": str(tmp_path / "nowhere")}, folder_of(tmp_path / "data")],
        cache,
    )
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "nowhere is not a folder" in record.getMessage()


def test_the_source_that_served_is_logged(tmp_path, cache, caplog):
    caplog.set_level(logging.INFO)
    obtain(CHECKSUMS, [folder_of(tmp_path / "data")], cache)
    assert f"folder {tmp_path / 'data'}: obtained" in caplog.text


def test_when_all_fail_the_error_names_each_source_its_reason_and_a_remedy(tmp_path, cache):
    broken = [
        {"kind": "folder", "path": str(tmp_path / "nowhere")},
        {"kind": "mirror", "url": (tmp_path / "no mirror").as_uri(), "suffix": ".gz"},
        folder_of(tmp_path / "partial", {name: CONTENT[name] for name in NAMES[1:]}),
    ]
    with pytest.raises(DownloadError) as error:
        obtain(CHECKSUMS, broken, cache)
    message = str(error.value)
    assert message.startswith("no source has train-images")
    assert f"folder {tmp_path / 'nowhere'}: " in message
    assert "nowhere is not a folder" in message
    assert f"mirror {broken[1]['url']}: " in message
    assert "No such file" in message
    assert f"folder {tmp_path / 'partial'}: " in message
    assert "lacks train-images, plain and gzipped" in message
    assert "Put the files" in message
    assert "the first of the sources" in message
    assert "\n" not in message


def test_without_sources_the_error_says_so(cache):
    with pytest.raises(DownloadError, match="none is configured"):
        obtain(CHECKSUMS, [], cache)


# Verification


def one_wrong(tmp_path, name, content):
    return folder_of(tmp_path / "wrong", CONTENT | {name: content})


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: b"<!DOCTYPE html>",
        lambda content: gzip.compress(content)[:-4],
        lambda content: gzip.compress(content)[:12],
    ],
    ids=["truncated", "one bit", "empty", "web page", "gzip without its end", "gzip cut early"],
)
def test_a_damaged_file_is_refused_and_never_cached(tmp_path, cache, damage):
    wrong = one_wrong(tmp_path, "train-labels", damage(CONTENT["train-labels"]))
    with pytest.raises(DownloadError, match="train-labels") as error:
        obtain(CHECKSUMS, [wrong], cache)
    assert str(error.value).startswith("no source has")
    assert CHECKSUMS["train-labels"] not in cached(cache)
    for path in cache.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_after_a_damaged_file_the_next_source_is_asked(tmp_path, cache):
    wrong = one_wrong(tmp_path, "train-labels", b"damaged")
    assert obtain(CHECKSUMS, [wrong, folder_of(tmp_path / "right")], cache) == CONTENT


def test_a_mislabelled_file_is_refused_with_the_name_of_what_it_is(tmp_path, cache):
    wrong = one_wrong(tmp_path, "train-labels", CONTENT["test-labels"])
    with pytest.raises(DownloadError, match="which is test-labels under a wrong name"):
        obtain(CHECKSUMS, [wrong], cache)
    assert CHECKSUMS["train-labels"] not in cached(cache)


def test_the_message_for_a_wrong_file_has_both_checksums(tmp_path, cache):
    with pytest.raises(DownloadError) as error:
        obtain(CHECKSUMS, [one_wrong(tmp_path, "train-labels", b"other")], cache)
    assert hashlib.sha256(b"other").hexdigest() in str(error.value)
    assert CHECKSUMS["train-labels"] in str(error.value)


# The cache


def test_the_cache_is_filled_once_and_then_no_source_is_asked(cache, count):
    assert obtain(CHECKSUMS, [{"kind": "counted"}], cache) == CONTENT
    assert cached(cache) == set(CHECKSUMS.values())
    assert obtain(CHECKSUMS, [{"kind": "counted"}], cache) == CONTENT
    assert obtain(CHECKSUMS, [], cache) == CONTENT  # offline
    assert len(count) == 1


def test_only_what_the_cache_lacks_is_obtained(cache, count):
    obtain(CHECKSUMS, [{"kind": "counted"}], cache)
    (cache / CHECKSUMS["test-images"]).unlink()
    assert obtain(CHECKSUMS, [{"kind": "counted"}], cache) == CONTENT
    assert count[1:] == [["test-images"]]


@pytest.mark.parametrize("damaged", [b"", CONTENT["test-images"][:-1], b"x" + CONTENT["test-images"][1:]])
def test_a_damaged_cache_file_is_replaced(cache, count, caplog, damaged):
    obtain(CHECKSUMS, [{"kind": "counted"}], cache)
    path = cache / CHECKSUMS["test-images"]
    path.write_bytes(damaged)
    assert obtain(CHECKSUMS, [{"kind": "counted"}], cache) == CONTENT
    assert f"{path} is damaged" in caplog.text
    assert count[1:] == [["test-images"]]
    assert path.read_bytes() == CONTENT["test-images"]


def test_a_damaged_cache_file_does_not_stay_when_no_source_can_replace_it(cache, count):
    obtain(CHECKSUMS, [{"kind": "counted"}], cache)
    path = cache / CHECKSUMS["test-images"]
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError):
        obtain(CHECKSUMS, [], cache)
    assert not path.exists()


def test_files_with_the_same_content_share_one_cache_file(cache, count, monkeypatch):
    monkeypatch.setitem(CONTENT, "twin", CONTENT["test-images"])
    checksums = CHECKSUMS | {"twin": CHECKSUMS["test-images"]}
    assert obtain(checksums, [{"kind": "counted"}], cache) == CONTENT
    assert cached(cache) == set(CHECKSUMS.values())


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(tmp_path, caplog, count):
    (tmp_path / "file").write_text("no folder can be made below a file, whoever runs this")
    assert obtain(CHECKSUMS, [{"kind": "counted"}], tmp_path / "file" / "cache") == CONTENT
    assert "cannot keep" in caplog.text


def test_a_failure_while_writing_the_cache_leaves_no_file(cache, count, monkeypatch, caplog):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert obtain(CHECKSUMS, [{"kind": "counted"}], cache) == CONTENT
    assert cached(cache) == set()
    assert "No space left on device" in caplog.text


def test_the_default_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in downloads.default_cache().parents
    assert "blindspots" in downloads.default_cache().parts


# Mirrors


class Mirror(http.server.BaseHTTPRequestHandler):
    """Gives what the server's `files` say: path -> (status, body, the length it claims)."""

    def do_GET(self):
        self.server.requests.append(self.path)
        status, body, length = self.server.files.get(self.path, (404, b"nothing here", None))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def mirror():
    """A server on this machine, with the files gzipped under /mnist/."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.files = {
        f"/mnist/{name}.gz": (200, gzip.compress(content), None) for name, content in CONTENT.items()
    }
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}/mnist/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("ending", ["", "/"], ids=["without slash", "with slash"])
def test_a_mirror_gives_the_gzipped_files_under_its_address(mirror, cache, ending):
    source = {"kind": "mirror", "url": mirror.url.rstrip("/") + ending, "suffix": ".gz"}
    assert obtain(CHECKSUMS, [source], cache) == CONTENT
    assert sorted(mirror.requests) == sorted(f"/mnist/{name}.gz" for name in NAMES)


def test_a_mirror_may_be_a_local_address(tmp_path, cache):
    folder_of(tmp_path / "copy", gzipped=True)
    assert (
        obtain(CHECKSUMS, [{"kind": "mirror", "url": (tmp_path / "copy").as_uri(), "suffix": ".gz"}], cache)
        == CONTENT
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, b"nothing here", None), "404"),
        ((503, b"later", None), "503"),
        ((200, b"<html>a page instead</html>", None), "SHA-256"),
        ((200, gzip.compress(CONTENT["test-images"])[:-9], None), "damaged gzip stream"),
    ],
    ids=["missing", "unavailable", "page", "cut on the server"],
)
def test_a_mirror_with_a_bad_file_is_a_reason_and_the_next_source_is_asked(
    mirror, tmp_path, cache, caplog, answer, reason
):
    mirror.files["/mnist/test-images.gz"] = answer
    assert (
        obtain(
            CHECKSUMS,
            [{"kind": "mirror", "url": mirror.url, "suffix": ".gz"}, folder_of(tmp_path / "data")],
            cache,
        )
        == CONTENT
    )
    assert reason in caplog.text


def test_a_download_that_breaks_off_moves_on_to_the_next_source(mirror, tmp_path, cache):
    status, body, _ = mirror.files["/mnist/test-images.gz"]
    mirror.files["/mnist/test-images.gz"] = (status, body[:20], len(body))
    assert (
        obtain(
            CHECKSUMS,
            [{"kind": "mirror", "url": mirror.url, "suffix": ".gz"}, folder_of(tmp_path / "data")],
            cache,
        )
        == CONTENT
    )


def test_an_answer_that_is_no_http_moves_on_to_the_next_source(tmp_path, cache, monkeypatch, mirror):
    monkeypatch.setattr(Mirror, "do_GET", lambda self: self.wfile.write(b"220 smtp ready\r\n"))
    assert (
        obtain(
            CHECKSUMS,
            [{"kind": "mirror", "url": mirror.url, "suffix": ".gz"}, folder_of(tmp_path / "data")],
            cache,
        )
        == CONTENT
    )


def test_an_unreachable_mirror_names_its_address(cache, mirror):
    mirror.shutdown()
    mirror.server_close()
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:\d+/mnist/train-images\.gz: .*refused"):
        obtain(CHECKSUMS, [{"kind": "mirror", "url": mirror.url, "suffix": ".gz"}], cache)


def test_the_configured_mirrors_are_those_of_torchvision():
    from torchvision.datasets import MNIST

    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    mirrors = [source["url"] for source in config["data"]["sources"] if source["kind"] == "mirror"]
    assert mirrors == MNIST.mirrors
    names = {file["name"] for file in config["data"]["files"].values()}
    assert {f"{name}.gz" for name in names} == {name for name, _ in MNIST.resources}


# npm

NPM = {"kind": "npm", "package": "some-data", "version": "1.2.3", "folder": "package/data"}


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Stands in for npm: a script that runs the returned
    function's text with sh, in the folder npm would pack into."""
    tools = tmp_path / "tools"
    tools.mkdir()

    def answer(script):
        (tools / "npm").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        (tools / "npm").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return answer


def packed(path, files=CONTENT):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_npm_gives_the_files_of_the_named_package_and_version(npm, tmp_path, cache):
    npm(f"cp {packed(tmp_path / 'prepared.tgz')} ./some-data-1.2.3.tgz")
    assert obtain(CHECKSUMS, [NPM], cache) == CONTENT
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:2] == ["pack", "some-data@1.2.3"]
    assert "--ignore-scripts" in arguments  # code of a downloaded package is never run


def test_npm_puts_the_archive_where_it_is_told(npm, tmp_path, cache):
    archive = packed(tmp_path / "prepared.tgz")
    npm(f'while [ "$1" != --pack-destination ]; do shift; done; cd / && cp {archive} "$2/any.tgz"')
    assert obtain(CHECKSUMS, [NPM], cache) == CONTENT


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            """echo '{"error": {"code": "E404", "summary": "some-data is not in this registry"}}'; exit 1""",
            "not in this reg",
        ),
        (
            "echo 'npm warn something' >&2; echo 'npm error network unreachable' >&2; exit 1",
            "npm error network unreachable",
        ),
        ("exit 7", "exit status 7"),
        ("echo '[]'", "npm pack some-data@1.2.3 failed"),
    ],
    ids=["told as JSON", "told in the log", "silent", "no archive"],
)
def test_a_failing_npm_is_a_reason(npm, cache, script, reason):
    npm(script)
    with pytest.raises(DownloadError) as error:
        obtain(CHECKSUMS, [NPM], cache)
    assert "npm some-data 1.2.3" in str(error.value)
    assert reason in str(error.value)


def test_without_the_npm_client_the_reason_says_so(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match="the npm client is not installed"):
        obtain(CHECKSUMS, [NPM], cache)


def test_an_npm_package_that_lacks_a_file_is_a_reason(npm, tmp_path, cache):
    archive = packed(tmp_path / "prepared.tgz", {name: CONTENT[name] for name in NAMES[1:]})
    npm(f"cp {archive} ./any.tgz")
    with pytest.raises(DownloadError, match=r"some-data@1\.2\.3 lacks a file or is damaged: .*train-images"):
        obtain(CHECKSUMS, [NPM], cache)


def test_an_npm_package_damaged_anywhere_is_a_reason_in_one_line_or_gives_the_right_files(
    tmp_path, cache, monkeypatch
):
    # Large enough that damage is met while a file's data are decompressed, not only in the archive's headers.
    rng = np.random.default_rng(0)
    files = {name: (rng.integers(0, 4, 5000, dtype=np.uint8) ** 2).tobytes() for name in NAMES}
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = packed(tmp_path / "prepared.tgz", files).read_bytes()
    archive = b""

    def pack(command, **options):  # in place of starting a process a hundred times
        Path(options["cwd"], "any.tgz").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(downloads.subprocess, "run", pack)
    for place in range(0, len(whole), len(whole) // 100):
        archive = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        try:
            given, refusal = obtain(checksums, [NPM], cache), ""
        except DownloadError as error:
            given, refusal = files, str(error)
        assert given == files
        assert "\n" not in refusal
        shutil.rmtree(cache, ignore_errors=True)


# PyPI

PYPI = {"kind": "pypi", "package": "some-data", "version": "1.2.3", "folder": "some_data/files"}


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: what it is called with, after what
    it is made to do in the folder that it is told."""
    calls = []

    def answer(wheel=None, status=0, said=""):
        def download(command, **options):
            calls.append(command)
            if wheel is not None:
                Path(command[-1], "some_data-1.2.3-py3-none-any.whl").write_bytes(wheel)
            return subprocess.CompletedProcess(command, status, "", said)

        monkeypatch.setattr(downloads.subprocess, "run", download)
        return calls

    return answer


def wheel(files=CONTENT):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"some_data/files/{name}", content)
    return buffer.getvalue()


def test_pypi_gives_the_files_of_the_named_package_and_version(pip, cache):
    calls = pip(wheel())
    assert obtain(CHECKSUMS, [PYPI], cache) == CONTENT
    (command,) = calls
    assert {"download", "some-data==1.2.3", "--no-deps"} <= set(command)
    assert command[command.index("--only-binary") + 1] == ":all:"  # code of a downloaded package is never run
    assert obtain(CHECKSUMS, [PYPI], cache) == CONTENT
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("content", "status", "said", "reason"),
    [
        (
            None,
            1,
            "WARNING: x\nERROR: No matching distribution found",
            "ERROR: No matching distribution found",
        ),
        (None, 0, "", "pip download some-data==1.2.3 failed"),
        (b"no archive", 0, "", "some-data==1.2.3 lacks a file or is damaged"),
        (wheel({NAMES[0]: CONTENT[NAMES[0]]}), 0, "", "some-data==1.2.3 lacks a file or is damaged"),
    ],
    ids=["refused", "nothing", "no zip", "a file missing"],
)
def test_a_failing_pip_is_a_reason(pip, cache, content, status, said, reason):
    pip(content, status, said)
    with pytest.raises(DownloadError) as error:
        obtain(CHECKSUMS, [PYPI], cache)
    assert "pypi some-data 1.2.3" in str(error.value)
    assert reason in str(error.value)


def test_a_mirror_without_a_suffix_gives_plain_files(tmp_path, cache):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert obtain(CHECKSUMS, [{"kind": "mirror", "url": tmp_path.as_uri(), "suffix": ""}], cache) == CONTENT
