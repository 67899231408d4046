"""What a job says of what happens to its pods: the true cause, once, with names and the fix."""

import json
from typing import Any

import pytest

from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl
from tests.bed.node import Node
from tests.cluster.jobs import ARGUMENTS, Job, status_of, until, wait
from tests.cluster.scripted import WAITS, scripted

pytestmark = pytest.mark.usefixtures("operator")
ENDLESS = {**ARGUMENTS, "max_steps": 1_000_000, "save_steps": 50, "logging_steps": 50}


def events_of(namespace: str) -> list[tuple[str, str]]:
    """Type and reason of the job's events but those of checkpoints, the oldest first."""
    found = get("events", "--namespace", namespace, "--field-selector=involvedObject.kind=TrainerJob")["items"]
    found = sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))
    told = [(event["type"], event["reason"]) for event in found]
    return [event for event in told if event[1] != "CheckpointCommitted"]


def running(job: Job, namespace: str) -> dict[str, Any]:
    """The status of a job that trains, and has committed a checkpoint."""
    apply(job(trainingArguments=ENDLESS))
    until(namespace, "{.status.checkpoint}")
    until(namespace, "{.status.state}=Running")
    return status_of(namespace)


def test_worker_that_was_asked_to_go_makes_one_normal_event(job: Job, namespace: str) -> None:
    before = running(job, namespace)
    assert events_of(namespace) == [("Normal", "Running")]
    kubectl("--namespace", namespace, "delete", "pod/job-1", "--wait=false")
    until(namespace, "{.status.state}=Restarting", seconds=30)
    until(namespace, "{.status.state}=Running")
    after = status_of(namespace)
    assert events_of(namespace)[1:] == [("Normal", "Evicted"), ("Normal", "Running")]
    assert after["attempts"][-1]["cause"].startswith("job-1 was asked to go")
    assert after["restarts"] == before["restarts"]


def ready(namespace: str, *names: str) -> None:
    """Wait until pods run."""
    for name in names:
        where = (f"pod/{name}", "--namespace", namespace, "--timeout=60s")
        kubectl("wait", *where, "--for=create", timeout=65)
        kubectl("wait", *where, "--for=condition=Ready", timeout=65)


def test_pod_that_a_finalizer_keeps_is_named(namespace: str) -> None:
    apply(scripted(namespace, "job", WAITS))
    ready(namespace, "job-0")
    pod = ("--namespace", namespace, "pod/job-0")
    kubectl("patch", *pod, "--type=merge", '--patch={"metadata":{"finalizers":["example.com/audit"]}}')
    kubectl("delete", *pod, "--wait=false")
    try:
        until(namespace, "{.status.reason}=HeldByFinalizer", seconds=60)
        words = "job-0 has ended and is kept by its finalizers: example.com/audit"
        assert status_of(namespace)["message"].startswith(words)
    finally:
        kubectl("patch", *pod, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    until(namespace, "{.status.reason}=Starting", seconds=60)


def test_default_limit_of_the_namespace_is_told_and_not_tried_for_ever(namespace: str) -> None:
    limits = {"type": "Container", "default": {"memory": "64Mi"}, "defaultRequest": {"memory": "16Mi"}}
    meta = {"name": "defaults", "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": [limits]}})
    apply(scripted(namespace, "job", "exec python3 -c \"'x' * 10**9\""))
    wait(namespace, "Failed", seconds=120)
    status = status_of(namespace)
    assert status["reason"] == "SameEndAgain"
    words = "job-0 was killed: out of memory (limit 64Mi, the namespace's default); set spec.workers.resources.memory"
    assert status["message"] == f"{words} (3 times, nothing committed between)"
    assert status["restarts"] == 3


def test_replaced_pod_keeps_the_jobs_image(namespace: str) -> None:
    def image(name: str) -> str:
        return str(get("pod", name, "--namespace", namespace)["spec"]["containers"][0]["image"])

    apply(scripted(namespace, "job", WAITS, count=2))
    ready(namespace, "job-0", "job-1")
    before = image("job-1")
    deployment = ("--namespace", OPERATOR, "deployment/trainyard-operator")
    kubectl("set", "env", *deployment, "TRAINYARD_IMAGE=localhost/no-such:2")
    try:
        kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=95)
        kubectl("--namespace", namespace, "delete", "pod/job-1", timeout=60)
        ready(namespace, "job-1")
        assert image("job-1") == before
        for suspend, then in ((True, "{.status.state}=Suspended"), (False, "{.status.reason}=ImageCannotBePulled")):
            patch = json.dumps({"spec": {"suspend": suspend}})
            kubectl("--namespace", namespace, "patch", "trainerjob/job", "--type=merge", f"--patch={patch}")
            until(namespace, then, seconds=90)
        assert image("job-0") == image("job-1") == "localhost/no-such:2"
    finally:
        kubectl("set", "env", *deployment, f"TRAINYARD_IMAGE={before}")
        kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=95)


@pytest.mark.slow
def test_node_lost_with_the_operator_is_no_restart(job: Job, namespace: str, node2: Node) -> None:
    deployment = ("--namespace", OPERATOR, "deployment/trainyard-operator")
    kubectl("cordon", "node-1")
    try:
        kubectl("rollout", "restart", *deployment)
        kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=95)
    finally:
        kubectl("uncordon", "node-1")
    before = running(job, namespace)
    assert {pod["spec"]["nodeName"] for pod in get("pods", "--namespace", namespace)["items"]} == {"node-1", "node-2"}
    node2.stop()
    until(namespace, f"{{.status.attempt}}={before['attempt'] + 1}", seconds=180)
    until(namespace, "{.status.state}=Running", seconds=180)
    after = status_of(namespace)
    assert after["restarts"] == before["restarts"], json.dumps(after["attempts"])
