"""What the verbs for a cluster say and send, without one."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import BIN, manifest
from trainyard.cli.main import trainyard
from trainyard.cluster import doctor, lifecycle, logs
from trainyard.cluster.jobs import describe, events_of, no_dashboard, row, token_secret, unseen
from trainyard.cluster.kubectl import ClusterError, Kubectl
from trainyard.cluster.upload import needed, placed, upload
from trainyard.errors import ManifestError, NotFoundError
from trainyard.spec.manifest import validate
from trainyard.spec.model import TrainerJob
from trainyard.spec.schema import crd
from trainyard.storage.store import open_store
from trainyard_operator.identity import Owner

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
META = {"name": "job", "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"}


def job(**changes: Any) -> TrainerJob:
    made, problems = validate(manifest(**changes))
    assert made is not None, problems
    return made


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder with a model, data and code."""
    for name, text in {
        "model/config.json": "{}", "data.jsonl": "{}\n", "code/train.py": "pass\n", "code/notes.txt": "x",
        "code/.git/HEAD": "x", "code/lib/__pycache__/a.pyc": "x", "code/lib/a.py": "pass\n", "code/.gitignore": "*.txt\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def local_job(folder: Path, **changes: Any) -> TrainerJob:
    spec = {
        "model": {"source": f"{folder}/model"},
        "data": {"train": {"source": f"{folder}/data.jsonl"}},
        "code": f"{folder}/code",
    }
    return job(storage={"uri": str(folder / "store")}, **{**spec, **changes})


def goes_up(made: TrainerJob, said: list[str]) -> dict[str, Any]:
    """Upload, and the spec with the URIs."""
    upload(made, "team", said.append)
    spec: dict[str, Any] = placed(made, "team")["spec"]
    return spec


def test_what_is_local_goes_up_once_by_its_content(local: Path) -> None:
    made = local_job(local)
    said: list[str] = []
    first = goes_up(made, said)
    second = goes_up(made, said)
    assert first == second
    assert [text.rpartition(": ")[2] for text in said] == ["uploading"] * 3 + ["there already"] * 3
    (local / "code/train.py").write_text("changed\n")
    third = goes_up(made, said)
    assert third["code"] != first["code"]
    assert third["model"] == first["model"]


def test_code_goes_up_without_what_git_ignores(local: Path) -> None:
    made = local_job(local)
    uri = goes_up(made, [])["code"]
    assert {entry.path for entry in open_store(uri).list()} == {"train.py", "lib/a.py", ".gitignore"}


def test_an_upload_that_was_cut_off_is_completed(local: Path) -> None:
    made = local_job(local)
    uri = goes_up(made, [])["code"]
    open_store(uri).delete(["lib/a.py"])
    said: list[str] = []
    goes_up(made, said)
    assert [text.rpartition(": ")[2] for text in said] == ["there already", "there already", "uploading"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"train": {"source": "./*.jsonl"}}}, "a pattern cannot be uploaded"),
        ({"model": {"source": "./nowhere"}}, "./nowhere: no such file or folder"),
    ],
    ids=["pattern", "missing"],
)
def test_what_cannot_go_up_is_told(local: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        needed(local_job(local, **changes))


def test_uris_hub_names_and_paths_of_the_image_stay() -> None:
    made = job(model={"source": "org/model"}, data={"train": {"source": "/mnt/data.jsonl"}}, storage={"uri": "s3://b"})
    assert needed(made) == []


def test_a_job_is_told_in_a_row_and_in_words() -> None:
    status = {
        "state": "Restarting", "reason": "Restarting", "message": "rank 1: killed", "loss": "0.25", "restarts": 1,
        "columns": {"step": "30/120", "progress": "25%", "eta": "3m"}, "goodputPercentage": 90,
        "attempts": [{"number": 2, "startTime": "t", "resumedFrom": "00000020-00001", "cause": "rank 1: killed", "lostSteps": 10}],
    }  # fmt: skip
    made = {"metadata": META, "spec": {"workers": {"count": 4}}, "status": status}
    assert row(made, NOW) == ["job", "Restarting", "4", "30/120", "25%", "3m", "0.25", "60m"]
    text = describe(made, [], [], NOW)
    assert "Progress:    30/120 25%" in text
    assert "Goodput:     90%" in text
    assert "State:       Restarting (Restarting): rank 1: killed" in text
    assert "2  t  from 00000020-00001; 10 steps done again; after: rank 1: killed" in text
    assert row({"metadata": META, "spec": {}}, NOW)[:3] == ["job", "New", "1"]


def test_every_field_of_the_crd_has_words() -> None:
    def bare(node: dict[str, Any], path: str) -> list[str]:
        found = [] if node.get("description") or path.endswith((".metadata", "[]")) else [path]
        for name, child in node.get("properties", {}).items():
            found += bare(child, f"{path}.{name}")
        if "items" in node:
            found += bare(node["items"], f"{path}[]")
        return found

    assert bare(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "") == []


def test_the_api_server_knows_the_bounds_of_numbers() -> None:
    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    count, deadline = spec["workers"]["properties"]["count"], spec["activeDeadlineSeconds"]
    assert (count["minimum"], count["maximum"], deadline["minimum"]) == (1, 1024, 1)
    fraction = spec["data"]["properties"]["evaluation"]["properties"]["fraction"]
    assert (fraction["minimum"], fraction["exclusiveMinimum"]) == (0, True)


def test_events_are_those_of_the_job_and_its_pods_since_it_was_made() -> None:
    made = {"metadata": {"name": "job", "namespace": "team", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}}

    def event(kind: str, name: str, uid: str, second: int, word: str = "Normal") -> dict[str, Any]:
        of = {"kind": kind, "name": name, "uid": uid}
        stamp = f"2026-01-01T00:00:0{second}Z" if second else "2025-12-31T23:59:59Z"
        return {"involvedObject": of, "lastTimestamp": stamp, "type": word, "reason": f"R{second}", "message": "m"}

    mine = [event("Pod", "job-0", "7", 3, "Warning"), event("TrainerJob", "job", "1", 1), event("Pod", "job-1", "8", 2)]
    others = [event("TrainerJob", "job", "0", 4), event("Pod", "job-0", "6", 0), event("Pod", "job-a-0", "9", 5)]
    found = events_of(made, [*mine, *others])
    assert [each["reason"] for each in found] == ["R1", "R2", "R3"]
    told = describe(made, [], found, NOW)
    assert "R3  job-0: m" in told
    assert "R2" not in told, "that a pod was started is no news"


class Breaking:
    """A kubectl whose first connection to a pod's log breaks; the API server counts whole seconds."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def job(self, _: str) -> dict[str, Any]:
        over = {"type": "Finished", "status": "True"} if len(self.asked) > 1 else {"type": "Running", "status": "True"}
        return {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": [over]}}

    def pod(self, *_: object) -> dict[str, Any]:
        phase = "Succeeded" if len(self.asked) > 1 else "Running"
        sidecar, trainer = ({"name": name, "state": {"running": {}}} for name in ("proxy", "trainer"))
        state = {"containerStatuses": [sidecar, trainer], "phase": phase}
        return {"metadata": {"uid": "1"}, "status": state}

    def lines(self, *asked: str) -> list[str]:
        self.asked.append(asked)
        lines = ["2026-01-01T00:00:01.1Z one\n", "2026-01-01T00:00:01.2Z two\n", "2026-01-01T00:00:02.3Z three\n"]
        return lines[:2] if len(self.asked) == 1 else lines


def test_a_log_is_followed_on_when_its_connection_breaks() -> None:
    kubectl: Any = Breaking()
    assert list(logs.follow(kubectl, "job", 0, lambda _: None)) == ["one\n", "two\n", "three\n"]
    assert "--since-time=2026-01-01T00:00:01.2Z" in kubectl.asked[1]
    assert all("--container=trainer" in asked for asked in kubectl.asked), "a sidecar's log may come first"


UNSEEN = {"metadata": {**META, "generation": 1, "uid": "0123456789"}, "spec": {}}
"""A job that was made an hour before NOW, and that no operator has looked at."""


def test_job_that_no_operator_sees_says_so() -> None:
    warning = unseen(UNSEEN, NOW)
    assert warning is not None
    assert warning.startswith("no operator has looked at it for 3600 s: none watches the namespace team")
    assert "trainyard doctor --namespace team" in warning
    assert warning in describe(UNSEEN, [], [], NOW)
    assert unseen(UNSEEN, datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)) is None, "it may look yet"
    assert unseen({**UNSEEN, "status": {"observedGeneration": 1}}, NOW) is None


class Unwatched:
    """kubectl in a namespace that no operator watches, until somebody deletes the job."""

    def __init__(self) -> None:
        self.looks = 0

    def job(self, name: str) -> dict[str, Any]:
        self.looks += 1
        if self.looks > 3:
            raise NotFoundError(name)
        return UNSEEN

    def pod(self, *_: object) -> None:
        return None

    def until_changed(self, *_: object) -> None:
        return None


@pytest.mark.parametrize(
    "verb",
    [
        lambda kubectl, tell: list(logs.follow(kubectl, "job", 0, tell)),
        lambda kubectl, tell: lifecycle.wait(kubectl, "job", "Finished", tell=tell),
    ],
    ids=["logs", "wait"],
)
def test_who_waits_hears_once_that_no_operator_sees_it(verb: Callable[..., Any]) -> None:
    told: list[str] = []
    with pytest.raises(NotFoundError):
        verb(Unwatched(), told.append)
    assert len(told) == 1
    assert told[0].startswith("no operator has looked at it for ")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubectl that knows one job, which no operator has looked at."""
    program = tmp_path / "kubectl"
    listed = json.dumps({"items": [UNSEEN]})
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{listed}\nEOF\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("kubectl")
def test_ls_says_which_jobs_no_operator_sees() -> None:
    result = CliRunner().invoke(trainyard, ["ls"])
    assert result.exit_code == 0
    assert "job: no operator has looked at it for" in result.stderr
    assert "no operator" not in result.stdout


def operator_in(namespace: str, watched: str | None, ready: int = 1) -> dict[str, Any]:
    variables = [{"name": "POD_NAMESPACE"}, *([{"name": "WATCH_NAMESPACE", "value": watched}] if watched else [])]
    return {
        "metadata": {"name": "trainyard-operator", "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"env": variables}]}}},
        "status": {"readyReplicas": ready},
    }


class Cluster:
    """kubectl of somebody in the namespace team."""

    def __init__(self, deployments: list[dict[str, Any]] | None, jobs: list[dict[str, Any]] | None = None) -> None:
        self.deployments, self.jobs = deployments, jobs or []

    def current_namespace(self) -> str:
        return "team"

    def get(self, what: str, *_: str) -> dict[str, Any]:
        if what == "deployments" and self.deployments is None:
            raise ClusterError("deployments is forbidden")
        return {"items": self.deployments if what == "deployments" else self.jobs}


@pytest.mark.parametrize(
    ("cluster", "well", "words"),
    [
        (Cluster([operator_in("system", None)]), True, "1 ready in system, for team"),
        (Cluster([operator_in("team", "team")]), True, "1 ready in team, for team"),
        (
            Cluster([operator_in("other", "other")]),
            False,
            "none watches the namespace team: the one in other watches other",
        ),
        (Cluster([operator_in("other", "a, team")]), True, "1 ready in other, for team"),
        (Cluster([operator_in("other", "other"), operator_in("team", "team", 0)]), False, "none ready in team"),
        (Cluster([]), False, "not found: helm install"),
        (Cluster(None), True, "not known: deployments is forbidden"),
        (Cluster(None, [UNSEEN]), False, "no operator has looked at a job for"),
    ],
    ids=["all", "this one", "another", "several", "not ready", "none", "may not look", "may not look, job unseen"],
)
def test_doctor_looks_for_who_watches_the_namespace(cluster: Any, well: bool, words: str) -> None:
    finding = doctor._operator(cluster)
    assert finding.well == well
    assert finding.told.startswith(words)


@pytest.mark.parametrize(
    ("status", "pod", "words"),
    [
        (
            {"state": "Suspended", "conditions": [{"type": "Suspended", "status": "True"}]},
            None,
            "Suspended: no pods. trainyard resume job",
        ),
        (
            {"state": "Complete", "conditions": [{"type": "Complete", "status": "True"}]},
            None,
            "Complete: the job has ended",
        ),
        (
            {"state": "Pending", "reason": "Unschedulable", "message": "no cpu"},
            {"status": {"phase": "Pending"}},
            "Pending (Unschedulable): no cpu.",
        ),
        ({"state": "Running"}, {"status": {"phase": "Running"}}, None),
    ],
    ids=["suspended", "complete", "pending", "running"],
)
def test_why_there_is_no_dashboard(status: dict[str, Any], pod: dict[str, Any] | None, words: str | None) -> None:
    reason = no_dashboard({**UNSEEN, "status": {"observedGeneration": 1, **status}}, pod, NOW)
    assert (reason is None) if words is None else (reason or "").startswith(words)


def test_name_of_the_token_is_the_operators() -> None:
    owner = Owner(namespace="team", name="job", uid="0123456789")
    assert token_secret("job", "0123456789") == owner.ray_secret


CONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: c, user: u, namespace: team}}]
users: [{name: u, user: {token: x}}]
"""


@pytest.mark.parametrize(
    ("config", "context", "words"),
    [
        (None, None, "kubectl has no configuration: KUBECONFIG names {file}, and nothing is there."),
        (CONFIG, None, "{file} has no current context; there are: here. Fix: --context"),
        (CONFIG, "typo", "--context typo: {file} has no such context; there are: here"),
        (CONFIG + "current-context: gone\n", None, "the current context gone is not in {file}; there are: here"),
        (CONFIG + "current-context: here\n", None, "https://127.0.0.1:1 (context here) cannot be reached: "),
        (CONFIG, "here", "https://127.0.0.1:1 (context here) cannot be reached: "),
        ("{", None, 'error loading config file "{file}"'),
    ],
    ids=["no file", "no current context", "unknown context", "lost context", "refused", "refused by name", "broken"],
)  # fmt: skip
def test_what_the_user_set_for_kubectl_stands_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str | None, context: str | None, words: str
) -> None:
    file = tmp_path / "config"
    if config is not None:
        file.write_text(config)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    with pytest.raises(ClusterError) as error:
        Kubectl(context=context).job("job")
    assert str(error.value).startswith(words.format(file=file))
    assert "localhost:8080" not in str(error.value)


def test_home_is_named_when_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    with pytest.raises(ClusterError, match=re.escape(f"{tmp_path}/.kube/config is not there")):
        Kubectl().job("job")


class Refused:
    """A kubectl that knows a job whose manifest was not accepted, and keeps what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def job(self, _: str) -> dict[str, Any]:
        conditions = [
            {"type": "Accepted", "status": "False", "message": "spec.storage: no bucket"},
            {"type": "Finished", "status": "True", "message": "spec.storage: no bucket"},
        ]
        status = {"state": "Invalid", "observedGeneration": 1, "conditions": conditions}
        return {"metadata": {**META, "generation": 1}, "spec": {}, "status": status}

    def pod(self, *_: object) -> None:
        return None

    def run(self, *asked: str) -> str:
        self.asked.append(asked)
        return ""


@pytest.mark.parametrize(
    "verb",
    [
        lambda kubectl: lifecycle.wait(kubectl, "job", "Finished", 9),
        lambda kubectl: list(logs.follow(kubectl, "job", 0, print)),
    ],
    ids=["wait", "logs"],
)
def test_refused_manifest_ends_waiting_with_its_words(verb: Any) -> None:
    with pytest.raises(ManifestError, match="no bucket"):
        verb(Refused())


def test_stop_deletes_a_refused_job_at_once() -> None:
    kubectl: Any = Refused()
    assert lifecycle.stop(kubectl, "job", print) is None
    assert [asked[0] for asked in kubectl.asked] == ["delete"]


def test_log_of_any_bytes_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\nprintf 'one\\377\\ntwo\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert list(Kubectl("team").lines("logs", "pod/job-0")) == ["one\ufffd\n", "two\n"]
    assert Kubectl("team").run("logs", "pod/job-0") == "one\ufffd\ntwo\n"
