"""Models and data by URI: fetched once into a cache on this machine, however many processes need them."""

import contextlib
import fcntl
import fnmatch
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from trainyard.errors import JobError
from trainyard.plan import files
from trainyard.spec.model import Storage
from trainyard.storage.disk import room_on
from trainyard.storage.store import Entry, Store, open_store
from trainyard.train.heartbeat import Heart


def cache_folder() -> Path:
    """Where fetched inputs are kept: TRAINYARD_CACHE, or ~/.cache/trainyard."""
    return Path(os.environ.get("TRAINYARD_CACHE", "~/.cache/trainyard")).expanduser()


def is_remote(source: str) -> bool:
    """Whether a source is an object-store URI."""
    return urlsplit(source).scheme in ("s3", "gs", "az")


def local_folder(source: str, storage: Storage) -> str:
    """A path or hub id that transformers and datasets can load; an object-store URI is fetched first.

    Raises JobError when nothing is there, StorageError, and DiskFullError.
    """
    if not is_remote(source):
        return source.removeprefix("file://") if source.startswith("file://") else str(Path(source).expanduser())
    with Heart.waiting():
        return _fetched(source, storage)


def _fetched(source: str, storage: Storage) -> str:
    """Where the object or folder of a URI lies on this machine, after it was fetched."""
    parent, _, name = source.rstrip("/").rpartition("/")
    if is_remote(f"{parent}/") and urlsplit(parent).netloc:
        store = open_store(parent, storage.endpoint_for(source), storage.region)
        entries = [entry for entry in store.list() if entry.path == name or entry.path.startswith(f"{name}/")]
    else:
        store, name = open_store(source, storage.endpoint_for(source), storage.region), ""
        entries = store.list()
    if not entries:
        raise JobError(f"{source}: there is nothing in storage under this URI")
    folder = _cached(store, source, storage, entries)
    return str(folder / name) if name else str(folder)


def local_files(source: str, storage: Storage) -> list[Path]:
    """The files, or the one folder, that a data source names, in order; those of a bucket are fetched first.

    A pattern (`part-*.jsonl`) names what it matches, here and in a bucket. Empty when nothing on this machine has the
    name: it may be a hub's. Raises StorageError, DiskFullError, and JobError when a URI names nothing.
    """
    if not is_remote(source):
        return files.matching(source)
    if not files.has_pattern(source):
        return [Path(local_folder(source, storage))]
    with Heart.waiting():
        return _fetched_matches(source, storage)


def _fetched_matches(source: str, storage: Storage) -> list[Path]:
    """Where the objects that match a pattern lie on this machine, after they were fetched."""
    fixed, pattern = _at_pattern(source)
    store = open_store(fixed, storage.endpoint_for(source), storage.region)
    entries = store.list()
    whole = [entry for entry in entries if entry.path == pattern]  # a name with brackets is a name
    matches = whole or [entry for entry in entries if _matches(entry.path.split("/"), pattern.split("/"))]
    if not matches:
        raise JobError(f"{source}: nothing in storage matches this pattern")
    folder = _cached(store, source, storage, matches)
    return [folder / entry.path for entry in matches]


def _at_pattern(source: str) -> tuple[str, str]:
    """A URI cut before the first part of its path that has signs of a pattern."""
    scheme, _, rest = source.partition("://")
    parts = rest.split("/")
    first = next(index for index, part in enumerate(parts) if files.has_pattern(part))
    return f"{scheme}://{'/'.join(parts[:first])}", "/".join(parts[first:])


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match those of a pattern, as glob.glob matches names here: `**` is any folders."""
    if not pattern or not parts:
        return not pattern and not parts
    first, rest = pattern[0], pattern[1:]
    is_hidden = parts[0].startswith(".") and not first.startswith(".")
    if first == "**":
        return _matches(parts, rest or ["*"]) or (not is_hidden and _matches(parts[1:], pattern))
    return not is_hidden and fnmatch.fnmatchcase(parts[0], first) and _matches(parts[1:], rest)


def _cached(store: Store, source: str, storage: Storage, entries: list[Entry]) -> Path:
    """The folder in this machine's cache that holds some objects."""
    # Another set of names and sizes is another folder: what was fetched before is never mixed with what is new.
    key = hashlib.sha256(repr((source, storage.endpoint_for(source), entries)).encode()).hexdigest()[:20]
    folder = cache_folder() / "sources" / key
    with room_on(folder, "TRAINYARD_CACHE"), _only_one(folder):
        for entry in entries:
            _fetch(store, entry, folder / entry.path)
    return folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Within, no other process of this machine fetches into the folder: it waits, and then finds all that it wants."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The kernel drops the lock with the process, however that ends. The file stays: who removed it could let two in.
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(store: Store, entry: Entry, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")  # under the lock; of one that died it is written again
    with partial.open("wb") as stream:
        for chunk in store.stream(entry.path, entry.size):
            stream.write(chunk)
    partial.replace(target)
