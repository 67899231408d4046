"""Models and data by URI: fetched once into a cache on this machine."""

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from trainyard.errors import JobError
from trainyard.spec.model import Storage
from trainyard.storage.disk import room_on
from trainyard.storage.store import Entry, Store, open_store


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
    parent, _, name = source.rstrip("/").rpartition("/")
    if is_remote(f"{parent}/") and urlsplit(parent).netloc:
        store = open_store(parent, storage.endpoint, storage.region)
        entries = [entry for entry in store.list() if entry.path == name or entry.path.startswith(f"{name}/")]
    else:
        store, name = open_store(source, storage.endpoint, storage.region), ""
        entries = store.list()
    if not entries:
        raise JobError(f"{source}: there is nothing in storage under this URI")
    # Another set of names and sizes is another folder: what was fetched before is never mixed with what is new.
    key = hashlib.sha256(repr((source, storage.endpoint, entries)).encode()).hexdigest()[:20]
    folder = cache_folder() / "sources" / key
    with room_on(folder, "TRAINYARD_CACHE"):
        for entry in entries:
            _fetch(store, entry, folder / entry.path)
    return str(folder / name) if name else str(folder)


def _fetch(store: Store, entry: Entry, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        for chunk in store.stream(entry.path, entry.size):
            stream.write(chunk)
    partial.replace(target)
