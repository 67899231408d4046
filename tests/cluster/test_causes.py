"""What a job says of what happens to its pods: the true cause, once, with names and the fix."""

import json
from typing import Any

import pytest

from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl
from tests.bed.node import Node
from tests.cluster.jobs import ARGUMENTS, Job, status_of, until, wait

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


def test_pod_that_a_finalizer_keeps_is_named(job: Job, namespace: str) -> None:
    running(job, namespace)
    pod = ("--namespace", namespace, "pod/job-1")
    kubectl("patch", *pod, "--type=merge", '--patch={"metadata":{"finalizers":["example.com/audit"]}}')
    kubectl("delete", *pod, "--wait=false")
    try:
        until(namespace, "{.status.reason}=HeldByFinalizer", seconds=60)
        assert status_of(namespace)["message"].startswith(
            "job-1 has ended and is kept by its finalizers: example.com/audit"
        )
    finally:
        kubectl("patch", *pod, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    until(namespace, "{.status.state}=Running")


def test_default_limit_of_the_namespace_is_told_and_not_tried_for_ever(job: Job, namespace: str) -> None:
    limits = {"type": "Container", "default": {"memory": "400Mi"}, "defaultRequest": {"memory": "400Mi"}}
    meta = {"name": "defaults", "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": [limits]}})
    made = job()
    made["spec"]["workers"]["count"] = 1
    apply(made)
    wait(namespace, "Failed", seconds=240)
    status = status_of(namespace)
    assert status["reason"] == "SameEndAgain"
    words = "job-0 was killed: out of memory (limit 400Mi, the namespace's default); set spec.workers.resources.memory"
    assert status["message"] == f"{words} (3 times, nothing committed between)"
    assert status["restarts"] == 3


def test_running_job_keeps_its_image(job: Job, namespace: str) -> None:
    running(job, namespace)
    image = get("pod", "job-0", "--namespace", namespace)["spec"]["containers"][0]["image"]
    deployment = ("--namespace", OPERATOR, "deployment/trainyard-operator")
    kubectl("set", "env", *deployment, "TRAINYARD_IMAGE=localhost/no-such:2")
    try:
        kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=95)
        until(namespace, "{.status.state}=Running")
        kubectl("--namespace", namespace, "delete", "pod/job-1", "--wait=false")
        until(namespace, "{.status.state}=Restarting", seconds=30)
        until(namespace, "{.status.state}=Running")
        assert get("pod", "job-1", "--namespace", namespace)["spec"]["containers"][0]["image"] == image
        words = f"its pods keep the image {image}; the operator's is localhost/no-such:2 now"
        assert status_of(namespace)["message"].startswith(words)
        for suspend in (True, False):
            patch = json.dumps({"spec": {"suspend": suspend}})
            kubectl("--namespace", namespace, "patch", "trainerjob/job", "--type=merge", f"--patch={patch}")
            until(
                namespace,
                "{.status.state}=Suspended" if suspend else "{.status.reason}=ImageCannotBePulled",
                seconds=90,
            )
        assert "localhost/no-such:2" in status_of(namespace)["message"]
    finally:
        kubectl("set", "env", *deployment, f"TRAINYARD_IMAGE={image}")
        kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=95)


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
