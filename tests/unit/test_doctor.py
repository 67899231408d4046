"""What doctor says of an operator that does not serve, by a kubectl that answers from files."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trainyard.cluster.doctor import _operator
from trainyard.cluster.kubectl import Kubectl

_KUBECTL = """#!{python}
import pathlib, sys
kind = sys.argv[sys.argv.index("get") + 1]
file = pathlib.Path(__file__).parent / (kind + ".json")
if not file.exists():
    sys.exit("error: forbidden")
print(file.read_text())
"""
DEPLOYMENT = {
    "metadata": {"namespace": "system", "name": "trainyard-operator"},
    "spec": {"template": {"spec": {"containers": [{}]}}},
}
LOGS = "kubectl logs --namespace system deployment/trainyard-operator"


def warning(pod: str, second: int, message: str) -> dict[str, Any]:
    of = {"kind": "Pod", "name": pod}
    return {"involvedObject": of, "lastTimestamp": f"2026-01-01T00:00:0{second}Z", "message": message}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what kubectl answers, by kind."""
    (tmp_path / "kubectl").write_text(_KUBECTL.format(python=sys.executable))
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "deployments.json").write_text(json.dumps({"items": [DEPLOYMENT]}))
    return tmp_path


def test_doctor_says_why_the_operator_does_not_start(cluster: Path) -> None:
    missing = 'MountVolume.SetUp failed for volume "tls" : secret "mine" not found'
    events = [
        warning("trainyard-operator-1-a", 2, missing),
        warning("trainyard-operator-1-a", 1, "older"),
        warning("another-pod", 3, "of another"),
    ]
    (cluster / "events.json").write_text(json.dumps({"items": events}))
    finding = _operator(Kubectl("team"))
    assert (finding.well, finding.told) == (False, f"none ready in system, for team: {missing} ({LOGS})")


def test_doctor_names_the_log_without_a_warning(cluster: Path) -> None:
    assert _operator(Kubectl("team")).told == f"none ready in system, for team: {LOGS}", "events are not for everybody"
    (cluster / "events.json").write_text(json.dumps({"items": []}))
    assert _operator(Kubectl("team")).told == f"none ready in system, for team: {LOGS}"
