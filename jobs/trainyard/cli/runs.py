"""From what a person types to a run's folder in storage."""

from pathlib import Path

from trainyard.errors import NotFoundError
from trainyard.spec.manifest import load
from trainyard.storage import layout
from trainyard.storage.store import Store, open_store

_ON_CLUSTER = "Of a run on a cluster, give the job's name"


def open_named(name: str) -> Store:
    """The run of a manifest file, of a folder, or of a URI. Raises NotFoundError when there is none."""
    if name.endswith((".yaml", ".yml")):
        storage, job = (loaded := load(name)).job.spec.storage, loaded.job
        uri = f"{storage.uri.rstrip('/')}/{job.name}"
        if "://" not in uri and not Path(uri).expanduser().is_dir():
            raise NotFoundError(f"{uri}: there is no such run. Has it been started? {_ON_CLUSTER}")
        store = open_store(uri, storage.endpoint, storage.region)
    elif "://" in name or Path(name).is_dir():
        store = open_store(name)
    else:
        raise NotFoundError(f"{name}: no such manifest or run folder")
    if not store.exists(layout.RUN):
        raise NotFoundError(f"{store.url()} is no run: it holds no {layout.RUN}. Has it been started? {_ON_CLUSTER}")
    return store


def is_named(name: str) -> bool:
    """Whether a text names a manifest, a folder or a URI, and not a job on a cluster."""
    return name.endswith((".yaml", ".yml")) or "://" in name or "/" in name or Path(name).is_dir()
