"""TrainerJobs on the cluster: applied with kubectl, run by the operator, told in kubectl's words."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from tests.bed.kubectl import apply, get, kubectl
from tests.bed.s3 import S3Server
from tests.cluster.conftest import OPERATOR
from tests.conftest import BIN, Tiny
from trainyard.storage.store import open_store

pytestmark = pytest.mark.usefixtures("operator")
Job = Callable[..., dict[str, Any]]
ARGUMENTS = {
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 4,
    "learning_rate": 1e-3,
}


def upload(s3: S3Server, folder: Path, uri: str) -> None:
    """Copy a folder or a file to the server."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for file in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if file.is_file():
            name = f"{prefix}/{file.relative_to(folder)}" if folder.is_dir() else prefix
            obstore.put(s3.store(bucket), name, file.read_bytes())


@pytest.fixture(scope="package")
def inputs(s3: S3Server, tiny: Tiny) -> str:
    """URI of the tiny model and its data."""
    upload(s3, Path(tiny.model("bert")), "s3://inputs/bert")
    upload(s3, Path(tiny.rows("classes")), "s3://inputs/classes.jsonl")
    return "s3://inputs"


@pytest.fixture
def job(namespace: str, mounted: dict[str, Any], s3: S3Server, inputs: str) -> Job:
    """A manifest for the namespace, with parts of its spec replaced."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3", "namespace": namespace},
        "stringData": s3.environment,
    }
    apply(secret)
    mount = {"name": "environment", "mountPath": "/opt/trainyard", "readOnly": True}
    template = {"spec": {"containers": [{"name": "trainer", "volumeMounts": [mount]}], "volumes": [mounted]}}

    def make(name: str = "job", **changes: Any) -> dict[str, Any]:
        spec = {
            "task": "text-classification",
            "model": {"source": f"{inputs}/bert"},
            "data": {"train": {"source": f"{inputs}/classes.jsonl"}},
            "trainingArguments": ARGUMENTS,
            "workers": {"count": 2, "template": template, "resources": {"cpu": "500m"}},
            "storage": {"uri": "s3://runs", "endpoint": s3.endpoint, "secret": "s3"},
            **changes,
        }
        meta = {"name": name, "namespace": namespace}
        return {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "metadata": meta, "spec": spec}

    return make


def wait(namespace: str, condition: str, name: str = "job", seconds: int = 150) -> None:
    where = ["--namespace", namespace, f"--timeout={seconds}s"]
    kubectl("wait", f"trainerjob/{name}", f"--for=condition={condition}", *where, timeout=seconds + 5)


def losses(s3: S3Server, namespace: str, name: str = "job") -> dict[int, float]:
    text = bytes(obstore.get(s3.store("runs"), f"{namespace}/{name}/metrics.jsonl").bytes()).decode()
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_a_job_trains_and_is_told_and_equals_the_local_run(
    job: Job, namespace: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = job()
    apply(manifest)
    wait(namespace, "Complete")
    status = get("trainerjob", "job", "--namespace", namespace)["status"]
    assert (status["state"], status["progress"], status["restarts"]) == ("Complete", "100%", 0)
    assert status["resultUri"] == f"s3://runs/{namespace}/job/final"
    assert "Complete" in kubectl("get", "tj", "--namespace", namespace)

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    assert open_store(status["resultUri"], s3.endpoint).exists("model.safetensors")
    del manifest["metadata"]["namespace"]
    manifest["spec"]["storage"]["uri"] = "s3://local"
    (tmp_path / "job.yaml").write_text(json.dumps(manifest))
    subprocess.run([str(BIN / "trainyard"), "run", str(tmp_path / "job.yaml"), "-q"], check=True, cwd=tmp_path)
    local = bytes(obstore.get(s3.store("local"), "job/metrics.jsonl").bytes()).decode()
    here = {row["step"]: row["loss"] for row in map(json.loads, local.splitlines()) if "loss" in row}
    assert losses(s3, namespace) == pytest.approx(here, abs=1e-6)


LONG = {**ARGUMENTS, "max_steps": 4000, "save_steps": 20}


def until(namespace: str, what: str, name: str = "job", seconds: int = 120) -> None:
    """Wait for a jsonpath of the job's status."""
    where = ["--namespace", namespace, f"--timeout={seconds}s"]
    kubectl("wait", f"trainerjob/{name}", f"--for=jsonpath={what}", *where, timeout=seconds + 5)


def status_of(namespace: str, name: str = "job") -> dict[str, Any]:
    found: dict[str, Any] = get("trainerjob", name, "--namespace", namespace)["status"]
    return found


@pytest.mark.parametrize("index", [1, 0], ids=["worker", "head"])
def test_a_killed_pod_costs_no_committed_step(job: Job, namespace: str, s3: S3Server, index: int) -> None:
    apply(job(trainingArguments=LONG))
    until(namespace, "{.status.checkpoint}")
    committed = status_of(namespace)["checkpoint"]
    kubectl("--namespace", namespace, "delete", "pod", f"job-{index}", "--force", "--grace-period=0")
    until(namespace, "{.status.attempt}=2")
    until(namespace, "{.status.state}=Running")
    after = status_of(namespace)
    assert int(after["checkpoint"][:8]) >= int(committed[:8])
    attempt = json.loads(bytes(obstore.get(s3.store("runs"), f"{namespace}/job/attempts/00002.json").bytes()))
    assert int(attempt["resumed_from"][:8]) >= int(committed[:8])


def test_suspend_saves_and_resume_goes_on_from_there(job: Job, namespace: str, s3: S3Server) -> None:
    apply(job(trainingArguments={**LONG, "save_steps": 2000}))
    until(namespace, "{.status.state}=Running")
    apply(job(trainingArguments={**LONG, "save_steps": 2000}, suspend=True))
    wait(namespace, "Suspended", seconds=60)
    assert get("pods", "--namespace", namespace)["items"] == []
    saved = [entry["path"] for page in obstore.list(s3.store("runs"), f"{namespace}/job/checkpoints") for entry in page]
    (step,) = {int(path.split("/")[3][:8]) for path in saved if path.endswith("manifest.json")}
    apply(job(trainingArguments={**LONG, "save_steps": 2000, "max_steps": step + 5}))
    wait(namespace, "Complete")
    assert status_of(namespace)["restarts"] == 0
    assert set(losses(s3, namespace)) == set(range(1, step + 6))


def test_a_users_mistake_fails_at_once_with_its_words(job: Job, namespace: str, inputs: str) -> None:
    apply(job(data={"train": {"source": f"{inputs}/classes.jsonl", "columns": {"text": "body"}}}))
    wait(namespace, "Failed", seconds=90)
    status = status_of(namespace)
    assert status["reason"] == "JobFailed"
    assert "has no column body" in status["message"]
    assert status["restarts"] == 0


def test_a_manifest_that_cannot_be_used_is_told_and_makes_no_pods(job: Job, namespace: str) -> None:
    apply(job(trainingArguments={"learnin_rate": 1e-3}, model={"source": "./bert"}))
    until(namespace, "{.status.state}=Invalid", seconds=20)
    message = status_of(namespace)["message"]
    assert "Did you mean learning_rate?" in message
    assert get("pods", "--namespace", namespace)["items"] == []


def test_a_secret_that_is_missing_is_named(job: Job, namespace: str, s3: S3Server) -> None:
    apply(job(storage={"uri": "s3://runs", "endpoint": s3.endpoint, "secret": "no-such"}))
    until(namespace, "{.status.reason}=SecretOrConfigMissing", seconds=30)
    assert '"no-such" not found' in status_of(namespace)["message"]


def test_a_job_outlives_its_operator(job: Job, namespace: str) -> None:
    apply(job(trainingArguments={**ARGUMENTS, "max_steps": 60}))
    until(namespace, "{.status.state}=Running")
    before = {pod["metadata"]["uid"] for pod in get("pods", "--namespace", namespace)["items"]}
    kubectl("--namespace", OPERATOR, "scale", "deployment/trainyard-operator", "--replicas=0")
    try:
        kubectl(
            "--namespace",
            namespace,
            "wait",
            "pod/job-0",
            "--for=jsonpath={.status.phase}=Succeeded",
            "--timeout=90s",
            timeout=95,
        )
    finally:
        kubectl("--namespace", OPERATOR, "scale", "deployment/trainyard-operator", "--replicas=1")
    wait(namespace, "Complete", seconds=60)
    after = {pod["metadata"]["uid"] for pod in get("pods", "--namespace", namespace)["items"]}
    assert after <= before, "nothing was started again"


def test_what_a_job_is_cannot_be_changed(job: Job, namespace: str) -> None:
    apply(job(suspend=True))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        apply(job(suspend=True, task="fill-mask"))
    assert "task cannot be changed" in refused.value.stderr


def test_every_field_is_explained(namespace: str) -> None:
    assert "Number of workers" in kubectl("explain", "trainerjob.spec.workers.count")
