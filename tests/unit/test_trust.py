"""What pods of running jobs trust while the chart is applied again, certificates change and Secrets are deleted."""

import base64
from typing import Any

import pytest

from tests.conftest import manifest
from tests.unit.jobs import OWNER, SETTINGS, SPEC, job
from trainyard_operator.identity import INDEX_LABEL, JOB_LABEL, SPEC_ANNOTATION, group_of
from trainyard_operator.informer import Informer
from trainyard_operator.progress import Progress
from trainyard_operator.reconcile import Reconciler
from trainyard_operator.render import Settings, spec_digest

Object = dict[str, Any]


class Cluster:
    """An API server that keeps objects by path, and does not run them."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.deleted: list[str] = []
        self.applied: list[str] = []

    def create(self, path: str, body: Object) -> bool:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            return False
        self.objects[name] = body
        return True

    def apply(self, path: str, body: Object) -> Object:
        if not path.endswith("/status"):
            self.applied.append(path)
            self.objects[path] = body
        return body

    def delete(self, path: str, *_: Any, **__: Any) -> None:
        self.deleted.append(path.rpartition("/")[2])

    def request(self, *_: Any, **__: Any) -> Object:
        return {"items": []}

    def secret(self, name: str) -> dict[str, str]:
        data = self.objects[f"/api/v1/namespaces/team/secrets/{name}"]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def operator(cluster: Cluster, settings: Settings = SETTINGS) -> Reconciler:
    """An operator that has just started, with the job in its informer."""
    jobs = Informer(cluster, "", print)  # type: ignore[arg-type]
    nodes = Informer(cluster, "", print)  # type: ignore[arg-type]
    pods = Informer(cluster, "", print, group_of)  # type: ignore[arg-type]
    found = manifest(**SPEC)
    found["metadata"] = {"name": OWNER.name, "namespace": OWNER.namespace, "uid": OWNER.uid, "generation": 1}
    jobs.objects["team/job"] = found
    return Reconciler(cluster, settings, jobs, pods, nodes, Progress(print))  # type: ignore[arg-type]


def run(one: Reconciler, *indices: int, digest: str = "") -> None:
    """Have pods of the job run."""
    for index in indices:
        meta = {
            "name": OWNER.pod(index), "namespace": "team", "uid": f"pod-{index}",
            "labels": {JOB_LABEL: OWNER.name, INDEX_LABEL: str(index)},
            "annotations": {SPEC_ANNOTATION: digest or spec_digest(job())}, "ownerReferences": [OWNER.reference],
        }  # fmt: skip
        one._pods._take({"metadata": meta, "spec": {"containers": [{}]}, "status": {"phase": "Running"}}, gone=False)


def test_ray_token_is_random_and_made_once(cluster: Cluster) -> None:
    operator(cluster).reconcile("team/job")
    token = cluster.secret(OWNER.ray_secret)["token"]
    assert len(token) == 64
    other = Cluster()
    operator(other).reconcile("team/job")
    assert other.secret(OWNER.ray_secret)["token"] != token, "nothing of the job or the certificates decides it"
    later = operator(cluster, Settings(image="trainer:2", progress_url="https://operator:8443", ca="another CA"))
    run(later, 0)
    later.reconcile("team/job")
    assert cluster.secret(OWNER.ray_secret)["token"] == token, "a replaced worker joins"
    assert cluster.deleted == []


def test_deleted_ray_token_starts_all_pods_again(cluster: Cluster) -> None:
    one = operator(cluster)
    one.reconcile("team/job")
    del cluster.objects[f"/api/v1/namespaces/team/secrets/{OWNER.ray_secret}"]
    del cluster.objects["/api/v1/namespaces/team/pods/job-1"]
    run(one, 0)
    assert one.reconcile("team/job") is not None
    assert cluster.deleted == ["job-0"]
    assert "/api/v1/namespaces/team/pods/job-1" not in cluster.objects, "it comes when the others are going"
    one.reconcile("team/job")
    assert "/api/v1/namespaces/team/pods/job-1" in cluster.objects


def test_new_authority_reaches_running_pods_once(cluster: Cluster) -> None:
    one = operator(cluster)
    one.reconcile("team/job")
    run(one, 0, 1)
    one.reconcile("team/job")
    assert cluster.applied == [], "nothing has changed"
    one.trust("CA and its successor")
    one.reconcile("team/job")
    one.reconcile("team/job")
    assert cluster.applied == [f"/api/v1/namespaces/team/secrets/{OWNER.child}"]
    assert cluster.secret(OWNER.child)["ca.crt"] == "CA and its successor"


def test_restarted_operator_writes_its_authority_once(cluster: Cluster) -> None:
    operator(cluster).reconcile("team/job")
    one = operator(cluster, Settings(image="trainer:1", progress_url="https://operator:8443", ca="another CA"))
    run(one, 0, 1)
    one.reconcile("team/job")
    one.reconcile("team/job")
    assert cluster.applied == [f"/api/v1/namespaces/team/secrets/{OWNER.child}"]
    assert cluster.secret(OWNER.child)["ca.crt"] == "another CA"


def test_pods_of_an_older_manifest_keep_it_until_they_go(cluster: Cluster) -> None:
    one = operator(cluster)
    one.reconcile("team/job")
    run(one, 0, 1, digest="older")
    one.trust("another CA")
    one.reconcile("team/job")
    assert cluster.applied == []
