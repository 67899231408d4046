"""The chart applied again while a job runs, and certificates that change under it. Its agent only reports."""

import base64
import re
import subprocess
import time

import pytest

from tests.bed import images, programs
from tests.bed.chart import CHART, values
from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl
from tests.cluster.jobs import status_of, until
from tests.cluster.scripted import scripted

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
REPORTS = """trap 'exit 143' TERM
/usr/bin/python3 -u - <<'END' &
import hashlib, json, os, ssl, time, urllib.request

print("ray token", hashlib.sha256(open(os.environ["RAY_AUTH_TOKEN_PATH"], "rb").read()).hexdigest())
of = "KUBEFLOW_TRAINER_SERVER_"
step = 0
while True:
    time.sleep(1)
    if os.environ["TRAINYARD_INDEX"] != "0":
        continue
    step += 1
    body = json.dumps({"trainyard": {"attempt": 1, "step": step, "total": 100000, "phase": "training"}}).encode()
    headers = {"Authorization": "Bearer " + open(os.environ[of + "TOKEN"]).read().strip()}
    request = urllib.request.Request(os.environ[of + "URL"], body, headers, method="POST")
    try:
        context = ssl.create_default_context(cafile=os.environ[of + "CA_CERT"])
        urllib.request.urlopen(request, timeout=5, context=context).read()
    except OSError as error:
        print(step, error)
END
wait"""
"""An agent that says which Ray token it has, and of which the first reports a step each second, as the real one does."""


def sync() -> None:
    """What Argo CD does at each sync, and an upgrade of the image after it: the operator starts again."""
    helm = str(programs.build() / "helm")
    command = [helm, "template", "trainyard", str(CHART), f"--namespace={OPERATOR}", "--kube-version=1.31"]
    text = subprocess.run([*command, *values(images.TRAINER)], capture_output=True, text=True, check=True).stdout
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    deployment = "deployment/trainyard-operator"
    kubectl("--namespace", OPERATOR, "rollout", "restart", deployment)
    kubectl("--namespace", OPERATOR, "rollout", "status", deployment, "--timeout=90s", timeout=95)


def wait_for_report(namespace: str, seconds: float = 45) -> None:
    """Wait until the status has a later step than now: a pod's report has come."""
    step = status_of(namespace)["step"]
    deadline = time.monotonic() + seconds
    while status_of(namespace)["step"] == step:
        assert time.monotonic() < deadline, f"no report for {seconds} s: {status_of(namespace)}"
        time.sleep(0.5)  # a watch would need a client that lives as long


def authorities(namespace: str) -> tuple[str, ...]:
    """The certificate authorities that the pods of the job trust."""
    uid = get("trainerjob", "job", "--namespace", namespace)["metadata"]["uid"]
    data = get("secret", f"job-{uid[:8]}", "--namespace", namespace)["data"]
    return tuple(PEM.findall(base64.b64decode(data["ca.crt"]).decode()))


def ray_token(namespace: str, index: int) -> str:
    """Which Ray token a pod says that it has."""
    kubectl("--namespace", namespace, "wait", f"pod/job-{index}", "--for=condition=Ready", "--timeout=60s", timeout=65)
    deadline = time.monotonic() + 30
    while True:
        log = kubectl("--namespace", namespace, "logs", f"job-{index}")
        found = re.search(r"ray token (\w{64})", log)
        if found:
            return found[1]
        assert time.monotonic() < deadline, log
        time.sleep(0.5)


@pytest.fixture
def running(operator: None, namespace: str) -> str:
    """The namespace of a job of two workers that reports."""
    del operator
    apply(scripted(namespace, "job", REPORTS, count=2))
    until(namespace, "{.status.state}=Running", seconds=60)
    return namespace


@pytest.mark.slow
def test_sync_of_the_chart_touches_no_running_job(running: str) -> None:
    before = status_of(running)
    trusted = authorities(running)
    token = ray_token(running, 0)
    for _ in range(2):
        sync()
        wait_for_report(running)
    assert authorities(running) == trusted
    assert status_of(running)["attempt"] == before["attempt"], "nothing was started again"
    kubectl("--namespace", running, "delete", "pod/job-1", "--force", "--grace-period=0")
    kubectl("--namespace", running, "wait", "pod/job-1", "--for=create", "--timeout=60s", timeout=65)
    assert ray_token(running, 1) == token, "a replaced worker may join"
    wait_for_report(running)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_new_authority_cuts_no_running_job_off(running: str) -> None:
    (old,) = authorities(running)
    kubectl("--namespace", OPERATOR, "delete", "secret", "trainyard-operator-ca")
    deadline = time.monotonic() + 420
    trusted = [(old,)]
    while len(trusted) < 3:
        wait_for_report(running, 30)
        now = authorities(running)
        if now != trusted[-1]:
            trusted.append(now)
        assert time.monotonic() < deadline, f"{len(trusted)} bundles so far"
    assert trusted[1][0] == old, "for a while both"
    assert trusted[2] == trusted[1][1:]
    wait_for_report(running, 30)
