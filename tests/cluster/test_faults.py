"""One job lives through what happens to clusters, one fault after the other; then what a job cannot live through."""

import json
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.bed import cluster as bed
from tests.bed import daemons
from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl
from tests.bed.node import Node
from tests.bed.proxy import Fault, FaultyProxy
from tests.cluster.conftest import foreign
from tests.cluster.faults import kill_in, measure
from tests.cluster.jobs import ARGUMENTS, Job, status_of, until, wait, worker_pod
from tests.costs import COSTS, Cost

pytestmark = pytest.mark.usefixtures("operator")
ENDLESS = {**ARGUMENTS, "max_steps": 1_000_000, "save_steps": 50, "logging_steps": 50}
_AWAY_SECONDS = 60


IN_SHORT = ("worker pod killed", "head pod killed", "operator killed with a worker pod")
"""Of all faults, those that every run of the tests can afford."""


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["short", "all"])
def test_a_job_survives_what_happens_to_clusters(
    job: Job, namespace: str, proxy: FaultyProxy, node2: Node, short: bool
) -> None:
    storage = {"uri": "s3://runs", "endpoint": proxy.endpoint, "secret": "s3"}
    apply(job(trainingArguments=ENDLESS, storage=storage, restart={"maxRestarts": 50, "hangSeconds": 3}))
    until(namespace, "{.status.checkpoint}")
    until(namespace, "{.status.state}=Running")

    def delete(*what: str) -> None:
        kubectl("--namespace", namespace, "delete", *what, "--wait=false")

    def operator_and_worker() -> None:
        selector = "--selector=app.kubernetes.io/name=trainyard-operator"
        delete("pod/job-1", "--force", "--grace-period=0")
        kubectl("--namespace", OPERATOR, "delete", "pod", selector, "--force", "--grace-period=0")

    faults: dict[str, Callable[[], None]] = {
        "worker pod killed": lambda: delete("pod/job-1", "--force", "--grace-period=0"),
        "worker pod deleted": lambda: delete("pod/job-1"),
        "head pod killed": lambda: delete("pod/job-0", "--force", "--grace-period=0"),
        "raylet killed": lambda: kill_in(namespace, "job-1", "raylet/raylet"),
        "Ray's head killed": lambda: kill_in(namespace, "job-0", "gcs/gcs_server"),
        "training process killed": lambda: kill_in(namespace, "job-1", "trainyard.launch.warm", "parent"),
        "warm process killed": lambda: kill_in(namespace, "job-1", "trainyard.launch.warm"),
        "training process hangs": lambda: kill_in(namespace, "job-1", "trainyard.launch.warm", "parent", "SIGSTOP"),
        "operator killed with a worker pod": operator_and_worker,
        "node lost": node2.stop,
    }
    chosen = {name: inflict for name, inflict in faults.items() if not short or name in IN_SHORT}
    costs = [measure(namespace, name, inflict) for name, inflict in chosen.items()]
    if not short:
        bed.start_node(node2)
        costs += [
            goes_on(namespace, "API server restarted", restart_api_server),
            goes_on(namespace, f"S3 away for {_AWAY_SECONDS} s", lambda: away(proxy)),
        ]
    assert [cost.fault for cost in costs if cost.lost or cost.duplicates] == []
    status = status_of(namespace)
    assert status["state"] == "Running"
    # The deletion of a pod and the loss of a node are no faults of the job. An operator that was killed may not have
    # seen the deletion.
    counted = set(chosen) - {"worker pod killed", "worker pod deleted", "head pod killed", "node lost"}
    sure = counted - {"operator killed with a worker pod"}
    assert len(sure) <= status["restarts"] <= len(counted), json.dumps(status)


@pytest.mark.slow
def test_a_spare_takes_the_place_and_one_of_two_operators_works(job: Job, namespace: str) -> None:
    made = job(trainingArguments=ENDLESS)
    made["spec"]["workers"] |= {"spares": 1}
    apply(made)
    until(namespace, "{.status.checkpoint}")
    until(namespace, "{.status.state}=Running")
    deployment = ("--namespace", OPERATOR, "deployment/trainyard-operator")
    force = ("--force", "--grace-period=0", "--wait=false")

    def leader_and_worker() -> None:
        holder = get("lease", "trainyard-operator", "--namespace", OPERATOR)["spec"]["holderIdentity"]
        kubectl("--namespace", OPERATOR, "delete", "pod", holder.rpartition("_")[0], *force)
        worker()

    def worker() -> None:
        kubectl("--namespace", namespace, "delete", "pod", worker_pod(namespace, "job", 1), *force)

    costs = [measure(namespace, "worker pod killed, with a spare", worker)]
    kubectl("scale", *deployment, "--replicas=2")
    try:
        kubectl("rollout", "status", *deployment, "--timeout=60s", timeout=65)
        kubectl("--namespace", namespace, "wait", "pod/job-1", "--for=condition=Ready", "--timeout=60s", timeout=65)
        costs.append(measure(namespace, "leader killed with a worker pod", leader_and_worker))
    finally:
        kubectl("scale", *deployment, "--replicas=1")
    assert [cost.fault for cost in costs if cost.lost or cost.duplicates] == []
    assert status_of(namespace)["restarts"] <= 1, "a leader that was killed may not have seen the deletion"


def restart_api_server() -> None:
    if foreign():
        pytest.skip("it restarts the API server, and KUBECONFIG names a cluster that is not ours")
    daemons.end("kube-apiserver")
    bed.up()


def away(proxy: FaultyProxy) -> None:
    with proxy.fault(Fault(reset=True)):
        time.sleep(_AWAY_SECONDS)  # the fault itself lasts


def goes_on(namespace: str, fault: str, inflict: Callable[[], None]) -> Cost:
    """A fault that needs no new attempt: steps go on, and checkpoints are committed again."""
    inflict()
    start, before = time.monotonic(), status_of(namespace)
    while (status := status_of(namespace))["checkpoint"] == before["checkpoint"] or status["step"] <= before["step"]:
        assert time.monotonic() - start < 120, f"{fault}: no checkpoint since: {status}"
        assert status["state"] != "Failed", f"{fault}: {status['message']}"
        time.sleep(0.25)
    assert status["attempt"] == before["attempt"], f"{fault}: {status['attempts'][-1]}"
    COSTS.append(Cost(fault, None, time.monotonic() - start))
    return COSTS[-1]


def test_why_a_job_cannot_start_is_told(job: Job, namespace: str, s3: object) -> None:
    image = {"containers": [{"name": "trainer", "image": "localhost/no-such:1", "imagePullPolicy": "Never"}]}
    for name, template in {"image": {"spec": image}, "place": {"spec": {"nodeSelector": {"moon": "full"}}}}.items():
        made = job(name)
        apply(
            {
                **made,
                "spec": {**made["spec"], "workers": {"count": 1, "template": template}, "pendingDeadlineSeconds": 600},
            }
        )
    missing = job("missing")
    apply({**missing, "spec": {**missing["spec"], "storage": {**missing["spec"]["storage"], "secret": "no-such"}}})
    until(namespace, "{.status.reason}=ImageCannotBePulled", "image", 60)
    until(namespace, "{.status.reason}=Unschedulable", "place", 30)
    until(namespace, "{.status.reason}=SecretOrConfigMissing", "missing", 30)
    assert "localhost/no-such:1" in status_of(namespace, "image")["message"]
    assert "node affinity" in status_of(namespace, "place")["message"]
    assert '"no-such" not found' in status_of(namespace, "missing")["message"]


def test_a_job_that_takes_too_much_memory_is_told_with_its_limit(job: Job, namespace: str) -> None:
    made = job(restart={"maxRestarts": 0})
    made["spec"]["workers"] = {**made["spec"]["workers"], "count": 1, "resources": {"cpu": "500m", "memory": "400Mi"}}
    apply(made)
    wait(namespace, "Failed", seconds=90)
    status = status_of(namespace)
    assert status["reason"] == "TooManyRestarts"
    assert "out of memory" in status["message"]
    assert "400Mi" in status["message"]


def test_a_namespace_that_goes_takes_its_jobs_along(job: Job, namespace: str) -> None:
    apply(job())
    until(namespace, "{.status.state}=Starting", seconds=30)
    kubectl("delete", "namespace", namespace, "--wait=true", "--timeout=90s", timeout=95)
    logs = kubectl("--namespace", OPERATOR, "logs", "deployment/trainyard-operator", "--since=30s")
    assert "a bug" not in logs
    with pytest.raises(subprocess.CalledProcessError):
        get("namespace", namespace)
