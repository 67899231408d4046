"""Files of a checkpoint between a folder on this machine and the store, each with its digest."""

import errno
import hashlib
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainyard import errors
from trainyard.checkpoint.manifest import FileEntry, Manifest, digest
from trainyard.storage.store import Store

_PARALLEL = 4


class CorruptCheckpoint(errors.StorageError):
    """What is in storage is not what was committed."""


def staged_files(folder: Path) -> list[str]:
    """The files below a folder, relative to it, sorted."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def upload(store: Store, prefix: str, folder: Path, files: Iterable[str]) -> list[FileEntry]:
    """Upload files of a folder below a prefix. Returns an entry for each, in the order given."""

    def send(path: str) -> FileEntry:
        entry = digest(folder / path, path)
        store.put_file(f"{prefix}/{path}", folder / path)
        return entry

    with ThreadPoolExecutor(_PARALLEL) as pool:
        return list(pool.map(send, files))


def verify(store: Store, manifest: Manifest, prefix: str) -> None:
    """Read every file of a checkpoint and compare it with the manifest. Raises CorruptCheckpoint."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda entry: _receive(store, prefix, entry, None), manifest.files))


def download(store: Store, manifest: Manifest, prefix: str, folder: Path) -> None:
    """Bring a checkpoint into a folder, verified while it streams; the folder is there only when all is right.

    Raises CorruptCheckpoint, and leaves nothing behind.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda entry: _receive(store, prefix, entry, partial), manifest.files))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _receive(store: Store, prefix: str, entry: FileEntry, folder: Path | None) -> None:
    target = None if folder is None else folder / entry.path
    if target is not None and not target.resolve().is_relative_to(folder.resolve()):  # type: ignore[union-attr]
        raise CorruptCheckpoint(f"{entry.path}: the manifest names a file outside the checkpoint")
    sha256, size = hashlib.sha256(), 0
    try:
        with _sink(target) as sink:
            for chunk in store.stream(f"{prefix}/{entry.path}"):
                sha256.update(chunk)
                size += len(chunk)
                sink.write(chunk)
    except errors.NotFoundError:
        raise CorruptCheckpoint(f"{prefix}/{entry.path} is missing") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message = f"no space left for {target}: free space there, or set TMPDIR to a larger disk; then run again"
        raise errors.StorageFullError(message) from error
    if size != entry.size or sha256.hexdigest() != entry.sha256:
        what = f"{size:,} bytes instead of {entry.size:,}" if size != entry.size else "another SHA-256 than committed"
        raise CorruptCheckpoint(f"{prefix}/{entry.path} has {what}")


def _sink(target: Path | None):  # type: ignore[no-untyped-def]
    if target is None:
        return Path("/dev/null").open("wb")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.open("wb")
