"""Jobs whose pods hold other containers: the trainer decides how a pod has ended."""

from typing import Any

import pytest

from tests.bed.kubectl import apply, get, kubectl
from tests.cluster.faults import kill_in
from tests.cluster.jobs import ARGUMENTS, Job, status_of, until, wait
from tests.cluster.pods import BASE

pytestmark = pytest.mark.usefixtures("operator")
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
ENDLESS = {
    "name": "proxy",
    "image": BASE,
    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
    "securityContext": SECURITY,
}


def beside(made: dict[str, Any], native: bool) -> dict[str, Any]:
    """The job with a sidecar that never ends by itself."""
    spec = made["spec"]["workers"]["template"]["spec"]
    if native:
        spec["initContainers"] = [{**ENDLESS, "restartPolicy": "Always"}]
    else:
        spec["containers"] = [*spec["containers"], ENDLESS]
    return made


@pytest.mark.parametrize("native", [False, True], ids=["sidecar", "native"])
def test_job_with_a_sidecar_completes_and_its_pods_go(job: Job, namespace: str, native: bool) -> None:
    apply(beside(job(), native))
    wait(namespace, "Complete")
    assert status_of(namespace)["step"] == ARGUMENTS["max_steps"]
    left = [pod for pod in get("pods", "--namespace", namespace)["items"] if pod["status"]["phase"] == "Running"]
    for pod in left:
        name = pod["metadata"]["name"]
        kubectl("wait", f"pod/{name}", "--namespace", namespace, "--for=delete", "--timeout=60s", timeout=65)


def test_fault_beside_a_sidecar_is_replaced(job: Job, namespace: str) -> None:
    apply(beside(job(trainingArguments={**ARGUMENTS, "max_steps": 100_000, "save_steps": 50}), native=False))
    until(namespace, "{.status.checkpoint}")
    until(namespace, "{.status.state}=Running")
    before = status_of(namespace)
    kill_in(namespace, "job-1", "trainyard.launch.warm")  # the agent ends with 75
    until(namespace, "{.status.state}=Restarting", seconds=60)
    until(namespace, "{.status.state}=Running")
    status = status_of(namespace)
    assert status["restarts"] == before["restarts"] + 1
    assert status["attempt"] > before["attempt"]


def test_users_mistake_beside_a_sidecar_fails_the_job(job: Job, namespace: str, inputs: str) -> None:
    apply(beside(job(data={"train": {"source": f"{inputs}/classes.jsonl", "columns": {"text": "body"}}}), native=False))
    wait(namespace, "Failed", seconds=90)
    assert status_of(namespace)["reason"] == "JobFailed"
    assert "has no column body" in status_of(namespace)["message"]
