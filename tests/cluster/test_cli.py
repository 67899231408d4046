"""The verbs of the command line against a real cluster."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.bed.kubectl import get, kubeconfig, kubectl
from tests.bed.s3 import S3Server
from tests.cluster.jobs import Job
from tests.conftest import BIN, Tiny
from tests.run.test_scripts import SCRIPT

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def verb(cli: Run, namespace: str, s3: S3Server) -> Run:
    """`trainyard VERB …` in the test's namespace."""
    path = f"{BIN}:{os.environ['PATH']}"
    env = {**s3.environment, "KUBECONFIG": str(kubeconfig()), "PATH": path}

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return cli(*arguments, "--namespace", namespace, env={**env, **changed})

    return run


@pytest.mark.usefixtures("operator")
def test_a_script_is_submitted_followed_and_looked_at(
    verb: Run, job: Job, namespace: str, tiny: Tiny, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    script = SCRIPT.replace("trainer.train()", "trainer.train()\n    print('said by the script')")
    (code / "train.py").write_text(script)
    (code / "helper.py").write_text("LABELS = 3\n")
    (code / "rows.jsonl").write_text(Path(tiny.rows("classes")).read_text())
    subprocess.run(["cp", "-r", tiny.model("bert"), str(code / "bert")], check=True)
    (code / ".gitignore").write_text("*.secret\n")
    (code / "my.secret").write_text("never to leave")
    manifest = job("script")
    spec = manifest["spec"]
    for part in ("task", "model", "data", "trainingArguments"):
        del spec[part]
    given = ["--model", "bert", "--data", "rows.jsonl", "--steps", "30"]
    spec |= {"code": "./code", "script": {"path": "train.py", "args": given, "env": {"GREETING": "hello"}}}
    (tmp_path / "job.yaml").write_text(json.dumps(manifest))

    done = verb("submit", "job.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would upload spec.code" in done.stderr
    planned = verb("plan", "job.yaml", "--cluster")
    assert "pod/script-0, pod/script-1" in planned.stdout, planned.stderr
    planned = verb("plan", "job.yaml", "--cluster", "-o", "json")
    assert json.loads(planned.stdout)["cluster"]["uploads"][0]["field"] == "spec.code", planned.stderr
    done = verb("submit", "job.yaml", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[rank 0] said by the script" in done.stdout
    assert "script: attempt 1" in done.stdout
    assert "code: code" in done.stderr

    status = get("trainerjob", "script", "--namespace", namespace)["status"]
    assert (status["state"], status["step"], status["steps"]) == ("Complete", 30, 30)
    assert status["checkpoint"].startswith("00000030")
    assert verb("ls", "-o", "name").stdout == "script\n"
    assert "Complete" in verb("ls").stdout
    told = verb("status", "script")
    assert "TrainingComplete" in told.stdout, told.stderr
    assert "Attempts:" in told.stdout
    assert "CheckpointCommitted" in verb("events", "script").stdout
    assert verb("wait", "script", "--timeout", "10s").returncode == 0
    assert status["checkpoint"] in verb("ckpt", "ls", "script").stdout
    kubectl("--namespace", namespace, "delete", "pods", "--all", "--grace-period=1")
    assert "[rank 0] said by the script" in verb("logs", "script").stdout, "from storage, once the pods are gone"
    again = verb("submit", "job.yaml")
    assert again.returncode != 0
    assert "trainyard rm script" in again.stderr, "a job runs once"
    assert "nothing to suspend" in verb("suspend", "script").stderr
    assert "will not be Running" in verb("wait", "script", "--for", "Running").stderr
    assert "deleted; its run stays in s3://" in verb("rm", "script", "-y").stdout
    assert verb("status", "script").returncode == 4
    assert "there already" in verb("submit", "job.yaml").stderr


@contextlib.contextmanager
def dashboard_of(name: str, namespace: str) -> Iterator[tuple[str, str]]:
    """Address and token that `trainyard dashboard` tells."""
    command = [str(BIN / "trainyard"), "dashboard", name, "--port", "0", "--namespace", namespace]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig()), "PATH": f"{BIN}:{os.environ['PATH']}"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Who runs the tests in the background has it ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout.readline().strip(), process.stderr.readline().removeprefix("token: ").strip()
        finally:
            process.send_signal(signal.SIGINT)


@pytest.mark.usefixtures("operator")
def test_a_job_is_suspended_resumed_and_stopped(verb: Run, job: Job, namespace: str, tmp_path: Path) -> None:
    manifest = job()
    manifest["spec"]["trainingArguments"] |= {"max_steps": 100_000, "save_steps": 50_000}
    (tmp_path / "job.yaml").write_text(json.dumps(manifest))
    assert verb("submit", "job.yaml").returncode == 0
    assert verb("wait", "job", "--for", "Running").returncode == 0
    assert verb("submit", "job.yaml").returncode == 0, "the same again changes nothing"
    waited = verb("wait", "job", "--timeout", "1s")
    assert waited.returncode == 6, waited.stderr
    with dashboard_of("job", namespace) as (url, token):
        api = f"{url}/api/v0/actors"
        with pytest.raises(HTTPError, match="401"):
            urlopen(api, timeout=30)
        with urlopen(Request(api, headers={"Authorization": f"Bearer {token}"}), timeout=30) as answer:
            assert "RayTrainWorker" in answer.read().decode()
        with urlopen(Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}), timeout=30) as answer:
            assert [each["metadata"] for each in json.loads(answer.read())] == [{"trainerjob": "job"}]
        taken = verb("dashboard", "job", "--port", url.rpartition(":")[2])
    assert taken.returncode == 7
    assert "choose another with --port" in taken.stderr
    assert verb("suspend", "job").returncode == 0
    assert verb("wait", "job", "--for", "Suspended").returncode == 0
    shown = verb("dashboard", "job")
    assert (shown.returncode, "Suspended: no pods" in shown.stderr) == (4, True)
    status = get("trainerjob", "job", "--namespace", namespace)["status"]
    saved = status.get("checkpoint", f"none: {status}")
    assert int(saved[:8]) > 0
    assert verb("resume", "job").returncode == 0
    assert verb("wait", "job", "--for", "Running").returncode == 0
    attempt = get("trainerjob", "job", "--namespace", namespace)["status"]["attempts"][-1]
    assert attempt["resumedFrom"] == saved
    assert attempt["cause"] == "spec.suspend was true"
    stopped = verb("stop", "job")
    assert stopped.returncode == 0, stopped.stderr
    assert int(stopped.stdout.rpartition("checkpoint is ")[2][:8]) >= int(saved[:8])
    assert verb("ls").stderr.startswith("no jobs in")


@pytest.mark.usefixtures("operator")
def test_doctor_runs_a_small_job_and_leaves_nothing(verb: Run, job: Job, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(job()))
    done = verb("doctor", "job.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    a small job: its workers met" in done.stdout
    assert get("trainerjobs", "--namespace", namespace)["items"] == []
    broken = verb("doctor", "job.yaml", "--set", "storage.secret=no-such")
    assert broken.returncode == 7
    assert "FAIL  Secret: no-such is not in" in broken.stdout


def test_what_is_not_there_is_told(verb: Run, tmp_path: Path) -> None:
    nobody = tmp_path / "kubeconfig"
    server = {"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    parts = {"clusters": [server], "contexts": [context], "users": [{"name": "x", "user": {}}], "current-context": "x"}
    nobody.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **parts}))
    away = verb("ls", KUBECONFIG=str(nobody))
    assert away.returncode == 7
    assert "https://127.0.0.1:9 (context x) cannot be reached" in away.stderr
    lost = verb("ls", PATH="/nowhere")
    assert lost.returncode == 7
    assert "kubectl is not on the PATH" in lost.stderr
