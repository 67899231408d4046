"""What the verbs for a cluster say and send, without one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import manifest
from trainyard.cluster import logs
from trainyard.cluster.jobs import describe, events_of, row
from trainyard.cluster.upload import needed, placed, upload
from trainyard.errors import ManifestError
from trainyard.spec.manifest import validate
from trainyard.spec.model import TrainerJob
from trainyard.spec.schema import crd
from trainyard.storage.store import open_store

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
        return {"metadata": {"generation": 1}, "status": {"conditions": [over]}}

    def get(self, *_: str) -> dict[str, Any]:
        phase = "Succeeded" if len(self.asked) > 1 else "Running"
        state = {"containerStatuses": [{"state": {"running": {}}}], "phase": phase}
        return {"metadata": {"uid": "1"}, "status": state}

    def lines(self, *asked: str) -> list[str]:
        self.asked.append(asked)
        lines = ["2026-01-01T00:00:01.1Z one\n", "2026-01-01T00:00:01.2Z two\n", "2026-01-01T00:00:02.3Z three\n"]
        return lines[:2] if len(self.asked) == 1 else lines


def test_a_log_is_followed_on_when_its_connection_breaks() -> None:
    kubectl: Any = Breaking()
    assert list(logs.follow(kubectl, "job", 0, lambda _: None)) == ["one\n", "two\n", "three\n"]
    assert "--since-time=2026-01-01T00:00:01.2Z" in kubectl.asked[1]
