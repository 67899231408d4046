"""What the benchmarks on the bed share: the operator installed, a namespace, and jobs in it.

They use the fixtures of the cluster's tests, so that what is measured is what is tested.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bed import chart, images, s3
from tests.bed import cluster as bed
from tests.bed.kubectl import apply, kubectl
from tests.bed.s3 import S3Server
from tests.cluster import conftest
from tests.cluster.jobs import upload

Object = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A namespace of the bed with everything that a job needs."""

    namespace: str
    s3: S3Server
    volume: Object

    def job(self, name: str, **spec: Any) -> Object:
        """A job of two workers on a tiny model, with parts of its spec replaced."""
        template = {"spec": {"containers": [{"name": "trainer", "volumeMounts": [MOUNT]}], "volumes": [self.volume]}}
        workers = {"count": 2, "template": template, "resources": {"cpu": "500m"}, **spec.pop("workers", {})}
        made = {
            "task": "text-classification", "model": {"source": "s3://inputs/bench/model"},
            "data": {"train": {"source": "s3://inputs/bench/data.jsonl"}}, "workers": workers,
            "storage": {"uri": "s3://runs", "endpoint": self.s3.endpoint, "secret": "s3"}, **spec,
        }  # fmt: skip
        meta = {"name": name, "namespace": self.namespace}
        return {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "metadata": meta, "spec": made}


MOUNT = {"name": "environment", "mountPath": "/opt/trainyard", "readOnly": True}


@contextlib.contextmanager
def place(inputs: Path) -> Iterator[Place]:
    """The bed with the operator, the benchmark's inputs in the object store, and a namespace; all gone afterwards."""
    was_up = bed.is_up()
    bed.up()
    bed.build()
    chart.load(images.TRAINER, images.OPERATOR)
    server, name = s3.up(), f"bench-{secrets.token_hex(3)}"
    with contextlib.ExitStack() as stack:
        if not was_up:
            stack.callback(bed.down)
        stack.enter_context(installed())
        upload(server, inputs / "model", "s3://inputs/bench/model")
        upload(server, inputs / "data.jsonl", "s3://inputs/bench/data.jsonl")
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": conftest.RESTRICTED}})
        stack.callback(kubectl, "delete", "namespace", name, timeout=180)
        meta = {"name": "s3", "namespace": name}
        apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": server.environment})
        with conftest.claimed(images.environment(), name) as volume:
            yield Place(name, server, volume)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """The operator, by its chart."""
    chart.install(images.TRAINER)
    try:
        yield
    finally:
        chart.uninstall()


def seconds_until(what: Callable[[], bool], limit: float = 180.0, pause: float = 0.05) -> float:
    """Seconds until something holds, asked for with a pause between. Raises TimeoutError."""
    start = time.monotonic()
    while not what():
        if time.monotonic() - start > limit:
            raise TimeoutError(f"not within {limit:.0f} s")
        time.sleep(pause)
    return time.monotonic() - start
