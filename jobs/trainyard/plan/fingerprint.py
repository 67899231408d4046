"""Digests of local inputs: other bytes are another input, wherever in a file they stand.

Files are read whole. The digest of much data is kept in the user's cache folder with the size, times, inode and device
of every file. It is taken from there only while all of these are the same: a write changes a file's ctime, which no
program can set. Two writes within one tick of the clock share a ctime, so nothing is kept of files that changed in the
seconds before they were read.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KEPT_BYTES = 64 * 1024 * 1024
"""Digests of less are not kept: to read it takes less than a tenth of a second."""

_SETTLED_SECONDS = 2.0
"""File systems keep times in steps of up to two seconds (FAT); those in use here, of milliseconds."""

_READ_BYTES = 4 * 1024 * 1024


def fingerprint(path: Path) -> str:
    """SHA-256, in hex, over names, sizes and contents of a file, or of all files below a folder.

    Raises OSError for what cannot be read.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    before = [_identity(path, file) for file in files]
    if sum(size for _, size, *_ in before) < _KEPT_BYTES:
        return _digest(path, files)
    kept = _cache_file(path)
    known = _known(kept, before)
    if known is not None:
        return known
    began = time.time()
    digest = _digest(path, files)
    newest = max(max(mtime, ctime) for *_, mtime, ctime in before) / 1e9
    settled = newest < began - _SETTLED_SECONDS
    if settled and [_identity(path, file) for file in files] == before:
        _keep(kept, before, digest)
    return digest


def _digest(path: Path, files: list[Path]) -> str:
    sha256 = hashlib.sha256()
    for file in files:
        sha256.update(f"{_name(path, file)}\0{file.stat().st_size}\0".encode())
        for chunk in _chunks(file):
            sha256.update(chunk)
    return sha256.hexdigest()


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            yield chunk


def _name(path: Path, file: Path) -> str:
    return str(file.relative_to(path)) if path.is_dir() else file.name


def _identity(path: Path, file: Path) -> list[Any]:
    """What changes when a file's bytes do: name, size (bytes), device, inode, mtime and ctime (nanoseconds)."""
    found = file.stat()
    return [_name(path, file), found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _cache_file(path: Path) -> Path:
    folder = Path(os.environ.get("TRAINYARD_CACHE", "~/.cache/trainyard")).expanduser()
    return folder / "fingerprints" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()


def _known(kept: Path, identities: list[list[Any]]) -> str | None:
    """The digest that was kept of exactly these files; None where there is none."""
    try:
        document = json.loads(kept.read_bytes())
        return str(document["digest"]) if document["files"] == identities else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(kept: Path, identities: list[list[Any]], digest: str) -> None:
    partial = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
    # Where nothing can be kept, it is read again.
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"files": identities, "digest": digest}), encoding="utf-8")
        partial.replace(kept)
