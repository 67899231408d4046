"""What the verbs for a cluster share: the options that say which, and where a job's run is."""

import functools
from collections.abc import Callable
from typing import Any

import click

from trainyard.cli.runs import is_named, open_named
from trainyard.cluster.kubectl import Kubectl
from trainyard.errors import NotFoundError
from trainyard.storage.store import Store, open_store


def on_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options -n and --context; the command gets a Kubectl as its first argument."""

    @click.option("-n", "--namespace", help="Namespace. Default: the one of kubectl's context.")
    @click.option("--context", help="Context of kubectl's configuration. Default: the current one.")
    @functools.wraps(command)
    def wrapper(*args: Any, namespace: str | None, context: str | None, **kwargs: Any) -> Any:
        return command(Kubectl(namespace, context), *args, **kwargs)

    return wrapper


def open_run(kubectl: Kubectl, name: str) -> Store:
    """The run of a manifest, a folder or a URI, or of a job on the cluster. Raises NotFoundError when there is none."""
    return open_named(name) if is_named(name) else run_of(kubectl.job(name))


def run_of(job: dict[str, Any]) -> Store:
    """The run's folder in storage. The credentials are this machine's, from the environment.

    Raises NotFoundError when the storage is a volume of the cluster, which this machine has not mounted.
    """
    storage, meta = job["spec"]["storage"], job["metadata"]
    uri = f"{storage['uri'].rstrip('/')}/{meta['namespace']}/{meta['name']}"
    try:
        return open_store(uri, storage.get("endpoint"), storage.get("region"), must_exist=True)
    except NotFoundError as error:
        raise NotFoundError(f"{error}: the job's storage is a volume of its pods") from None
