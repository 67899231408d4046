"""Other bytes are another input, and what has not changed is read once."""

import os
import time
from pathlib import Path

import pytest

from trainyard.plan import fingerprint as module
from trainyard.plan.fingerprint import fingerprint

MIB = 1024 * 1024
LONG_AGO = time.time_ns() - 60 * 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; digests of a mebibyte are kept, so that files may be small."""
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_KEPT_BYTES", MIB)
    # A file's ctime cannot be set back: it counts as settled at once.
    monkeypatch.setattr(module, "_SETTLED_SECONDS", -1e9)
    return tmp_path / "cache" / "fingerprints"


def big(file: Path) -> Path:
    """A sparse file of 600 MiB, above what was once read at its ends only."""
    with file.open("wb") as stream:
        stream.truncate(600 * MIB)
    return file


def write_middle(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(300 * MIB)
        stream.write(b"other")


def test_change_in_middle_of_large_file_is_seen(tmp_path: Path) -> None:
    file = big(tmp_path / "model.bin")
    first = fingerprint(file)
    write_middle(file)
    assert fingerprint(file) != first


def test_change_with_old_time_is_seen(tmp_path: Path) -> None:
    """A program may set a file's mtime back, not its ctime."""
    file = big(tmp_path / "model.bin")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    first = fingerprint(file)
    write_middle(file)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert fingerprint(file) != first


def test_unchanged_file_is_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"x" * 2 * MIB)
    first = fingerprint(file)
    assert len(list(cache.iterdir())) == 1

    def read(file: Path) -> list[bytes]:
        raise AssertionError(f"{file} was read again")

    monkeypatch.setattr(module, "_chunks", read)
    assert fingerprint(file) == first


def test_file_that_has_just_changed_is_not_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 2.0)
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"x" * 2 * MIB)
    fingerprint(file)
    assert not cache.exists()


def test_damaged_cache_is_read_over(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"x" * 2 * MIB)
    first = fingerprint(file)
    (kept,) = cache.iterdir()
    kept.write_text("{")
    assert fingerprint(file) == first


def test_fingerprint_sees_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("x")
    first = fingerprint(folder)
    (folder / "a").rename(folder / "b")
    second = fingerprint(folder)
    (folder / "b").write_text("y")
    assert len({first, second, fingerprint(folder)}) == 3
