"""What pods need and somebody has deleted is made again when a pod is made."""

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import manifest
from tests.unit.jobs import OWNER, SETTINGS, SPEC
from trainyard_operator.identity import group_of
from trainyard_operator.informer import Informer
from trainyard_operator.progress import Progress
from trainyard_operator.reconcile import Reconciler


class Cluster:
    """An API server that keeps objects by kind, and does not run them."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}

    def create(self, path: str, body: dict[str, Any]) -> bool:
        kind = body["kind"] if body["kind"] != "Secret" else body["metadata"]["name"]
        if body["kind"] != "Pod" and kind in self.objects:
            return False
        self.objects[kind] = body
        return True

    def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if not path.endswith("/status"):
            self.objects[body["kind"]] = body
        return body

    def request(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"items": []}


@pytest.mark.parametrize("kind", ["PodGroup", "Service", "NetworkPolicy", OWNER.child])
def test_deleted_object_comes_again_with_a_pod(kind: str) -> None:
    api = Cluster()
    jobs, nodes = Informer(api, "", print), Informer(api, "", print)  # type: ignore[arg-type]
    pods = Informer(api, "", print, group_of)  # type: ignore[arg-type]
    found = manifest(**SPEC)
    found["metadata"] = {"name": OWNER.name, "namespace": OWNER.namespace, "uid": OWNER.uid, "generation": 1}
    jobs.objects["team/job"] = found
    one = Reconciler(api, replace(SETTINGS, gang="Volcano"), jobs, pods, nodes, Progress(print))  # type: ignore[arg-type]
    one.reconcile("team/job")
    made = api.objects.pop(kind)
    one.reconcile("team/job")
    assert api.objects[kind] == made
