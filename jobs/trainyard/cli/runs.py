"""From what a person types to a run's folder in storage."""

from pathlib import Path

from trainyard.errors import NotFoundError
from trainyard.spec.manifest import load
from trainyard.storage import layout
from trainyard.storage.store import Store, open_store

_ON_CLUSTER = "Of a run on a cluster, give the job's name"


def open_named(name: str) -> Store:
    """The run of a manifest file, of a folder, or of a URI. Raises NotFoundError when there is none."""
    store = _open(name)
    try:
        store.get(layout.RUN)  # a read says whether the bucket is there, and a look at its size does not
    except NotFoundError:
        words = f"{store.url()} is no run: it holds no {layout.RUN}. Has it been started? {_ON_CLUSTER}"
        raise NotFoundError(words) from None
    return store


def _open(name: str) -> Store:
    """The store that a text names; it makes nothing. Raises NotFoundError for a folder that is not there."""
    uri, endpoint, region = name, None, None
    if name.endswith((".yaml", ".yml")):
        job = load(name).job
        storage = job.spec.storage
        uri, endpoint, region = f"{storage.uri.rstrip('/')}/{job.name}", storage.endpoint, storage.region
    elif "://" not in name and not Path(name).is_dir():
        raise NotFoundError(f"{name}: no such manifest or run folder")
    try:
        return open_store(uri, endpoint, region, must_exist=True)
    except NotFoundError:
        raise NotFoundError(f"{uri}: there is no such run. Has it been started? {_ON_CLUSTER}") from None


def is_named(name: str) -> bool:
    """Whether a text names a manifest, a folder or a URI, and not a job on a cluster."""
    return name.endswith((".yaml", ".yml")) or "://" in name or "/" in name or Path(name).is_dir()
