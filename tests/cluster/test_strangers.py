"""What a user with rights in one namespace only can do to the jobs of others: nothing."""

import json
from typing import Any

import pytest

from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl
from tests.cluster.jobs import ARGUMENTS, Job, status_of, until, wait
from tests.cluster.pods import BASE, pod

pytestmark = pytest.mark.usefixtures("operator")
USER = "mallory"
LABELS = ("trainyard.dev/job-name", "trainyard.dev/index")


@pytest.fixture
def evil(cluster: None, namespace: str) -> Any:
    """Another namespace, where a user has the cluster's role `edit`."""
    name = f"{namespace}-evil"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "edit", "namespace": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    }
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, binding)
    yield name
    for found in get("pods", "--namespace", name)["items"]:
        where = ("--namespace", name, f"pod/{found['metadata']['name']}")
        kubectl("patch", *where, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    kubectl("delete", "namespace", name, "--wait=false")


def test_stranger_completes_no_job_of_another_namespace(job: Job, namespace: str, evil: str) -> None:
    apply(job("victim", trainingArguments={**ARGUMENTS, "max_steps": 30}))
    until(namespace, "{.status.state}=Running", "victim")
    meta = get("trainerjob", "victim", "--namespace", namespace)["metadata"]
    owner = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "controller": True}
    reference = {**owner, "name": "victim", "uid": meta["uid"]}
    for name, index in (("victim-0", "0"), ("no-index", None), ("no-number", "zero"), ("too-big", "9" * 60)):
        forged = pod(evil, name, ["sh", "-c", "exit 0"], BASE)
        labels = {LABELS[0]: "victim"} | ({LABELS[1]: index} if index is not None else {})
        forged["metadata"] |= {"labels": labels, "ownerReferences": [reference], "finalizers": ["example.com/stays"]}
        kubectl("create", f"--as={USER}", "-f", "-", stdin=json.dumps(forged))
    for name in ("victim-0", "no-index", "no-number", "too-big"):
        # Their owner is in another namespace, so the garbage collector deletes them too, before or after they end.
        collected = "--for=jsonpath={.metadata.deletionTimestamp}"
        kubectl("wait", f"pod/{name}", "--namespace", evil, collected, "--timeout=90s", timeout=95)
    wait(namespace, "Complete", "victim")
    status = status_of(namespace, "victim")
    assert status["step"] == 30, "it was trained to its end"
    assert status["restarts"] == 0
    logs = kubectl("--namespace", OPERATOR, "logs", "deployment/trainyard-operator", "--since=120s")
    assert "a bug" not in logs
    assert {each["metadata"]["name"] for each in get("pods", "--namespace", evil)["items"]} >= {"victim-0", "no-index"}
