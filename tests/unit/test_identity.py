"""Which pods are a job's: no stranger's pod counts, and no label of a stranger raises."""

import io
import json
import threading
from typing import Any

import pytest

from tests.conftest import manifest
from tests.unit.jobs import OWNER, SETTINGS, SPEC, job
from trainyard_operator.identity import INDEX_LABEL, JOB_LABEL, belongs, group_of, index_of
from trainyard_operator.informer import Informer
from trainyard_operator.progress import Progress, Server
from trainyard_operator.reconcile import Reconciler
from trainyard_operator.render import pod


def own(index: int = 0, **meta: Any) -> dict[str, Any]:
    """A pod of the job, with parts of its metadata replaced."""
    made: dict[str, Any] = json.loads(json.dumps(pod(job(), OWNER, SETTINGS, index)))
    made["metadata"] |= {"uid": f"pod-{index}", **meta}
    made["status"] = {"phase": "Running"}
    return made


def labelled(**labels: str | None) -> dict[str, Any]:
    """A pod of the job, with labels replaced, or taken away where they are None."""
    made = own()
    changed = {INDEX_LABEL if name == "index" else JOB_LABEL: value for name, value in labels.items()}
    merged = made["metadata"]["labels"] | changed
    made["metadata"]["labels"] = {name: value for name, value in merged.items() if value is not None}
    return made


STRANGERS = {
    "other namespace": own(namespace="evil"),
    "other name": own(name="job-x"),
    "name of another index": own(name="job-1"),
    "no owner": own(ownerReferences=[]),
    "owner that is no controller": own(ownerReferences=[{**OWNER.reference, "controller": False}]),
    "other owner": own(ownerReferences=[{**OWNER.reference, "uid": "uid-2"}]),
    "no labels": own(labels=None),
    "other job": labelled(job="other"),
    "no job": labelled(job=None),
    "no index": labelled(index=None),
    "index that is no number": labelled(index="zero"),
    "index that is too big": labelled(index="9" * 5000),
    "negative index": labelled(index="-1"),
    "index with a zero before it": labelled(index="00"),
    "index in other digits": labelled(index="٠"),
    "empty index": labelled(index=""),
}


def test_pod_of_the_operator_belongs_to_its_job() -> None:
    assert belongs(own(), OWNER)
    assert index_of(own(1)) == 1


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_stranger_belongs_to_no_job(stranger: dict[str, Any]) -> None:
    assert not belongs(stranger, OWNER)


class Writes:
    """An API server that takes everything, and keeps what was written."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.created: list[str] = []
        self.status: dict[str, Any] = {}

    def create(self, path: str, body: dict[str, Any]) -> bool:
        self.created.append(body["metadata"]["name"])
        return True

    def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.status = body.get("status", self.status)
        return body

    def delete(self, path: str, *_: Any, **__: Any) -> None:
        self.deleted.append(path)

    def request(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"items": []}


def passed(*pods: dict[str, Any]) -> Writes:
    """What one pass over the job wrote with these pods in the cluster."""
    api = Writes()
    jobs, known, nodes = (Informer(api, "", print, index) for index in (None, group_of, None))  # type: ignore[arg-type]
    found = manifest(**SPEC)
    found["metadata"] = {"name": OWNER.name, "namespace": OWNER.namespace, "uid": OWNER.uid, "generation": 1}
    jobs.objects["team/job"] = found
    for each in pods:
        known._take(json.loads(json.dumps(each)), gone=False)
    Reconciler(api, SETTINGS, jobs, known, nodes, Progress(print)).reconcile("team/job")  # type: ignore[arg-type]
    return api


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_stranger_that_succeeds_completes_no_job(stranger: dict[str, Any]) -> None:
    ended = {**stranger, "status": {"phase": "Succeeded"}}
    wrote = passed(own(0), own(1), ended) if stranger["metadata"]["namespace"] == "evil" else passed(ended)
    assert wrote.status["state"] == "Starting"
    assert wrote.deleted == []


@pytest.mark.parametrize(
    ("path", "speaker", "status"),
    [
        ("team/trainerjobs/job", own(0), 200),
        ("team/trainerjobs/other", own(0), 403),
        ("team/trainerjobs/job", own(namespace="evil"), 403),
        ("evil/trainerjobs/job", own(namespace="evil"), 403),
        ("team/trainerjobs/job", own(ownerReferences=[{**OWNER.reference, "uid": "uid-2"}]), 403),
        ("team/trainerjobs/job", labelled(index=None), 403),
    ],
    ids=["own", "other job", "other namespace", "no such job", "other owner", "no index"],
)
def test_only_a_jobs_own_pods_report(path: str, speaker: dict[str, Any], status: int) -> None:
    meta = speaker["metadata"]

    class Reviews:
        def request(self, *_: Any, **__: Any) -> dict[str, Any]:
            prefix = "authentication.kubernetes.io/pod-"
            user = {
                "username": f"system:serviceaccount:{meta['namespace']}:default",
                "extra": {f"{prefix}name": [meta["name"]], f"{prefix}uid": [meta["uid"]]},
            }
            return {"status": {"authenticated": True, "audiences": ["trainyard.dev"], "user": user}}

    jobs, pods = (Informer(Reviews(), "", print) for _ in range(2))  # type: ignore[arg-type]
    jobs.objects["team/job"] = {"metadata": {"name": "job", "namespace": "team", "uid": OWNER.uid}}
    pods.objects[f"{meta['namespace']}/{meta['name']}"] = speaker
    leads, progress, answers = threading.Event(), Progress(lambda _: None), list[str]()
    leads.set()
    body = b'{"trainyard": {"step": 3}}'
    asked = {
        "PATH_INFO": f"/apis/trainyard.dev/v1alpha1/namespaces/{path}/progress", "REQUEST_METHOD": "POST",
        "HTTP_AUTHORIZATION": "Bearer x", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
    }  # fmt: skip
    Server(Reviews(), jobs, pods, progress, leads)(asked, lambda line, _: answers.append(line))  # type: ignore[arg-type]
    assert answers[0].startswith(str(status))
    assert bool(progress.get("team/job", OWNER.uid)) == (status == 200)
