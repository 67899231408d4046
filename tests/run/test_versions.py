"""Pods of one job that run different versions of trainyard."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainyard
from trainyard.launch.raynode import RayNode, reachable

HERE = "127.0.0.1"


@contextlib.contextmanager
def ray_node(log: Path, head: str | None = None) -> Iterator[RayNode]:
    node = RayNode(1, 0, HERE, log, head)
    try:
        yield node
    finally:
        node.end()


def version_of_head() -> str:
    """What a new process finds: Ray reads its token once in a process, and other tests have had others."""
    code = f"from trainyard.launch.raynode import await_head; print(await_head({HERE!r}, lambda: False))"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return asked.stdout.split()[-1]


def test_member_of_another_version_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reachable(HERE), "another Ray cluster runs on this machine"
    # As in pods: a token that lies in the home folder, or none, is not asked for.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    # Python imports it at its start: the head's process is one of an older version.
    (tmp_path / "sitecustomize.py").write_text("import trainyard\ntrainyard.__version__ = '0.0.9'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ray_node(tmp_path / "head.log") as head:
        monkeypatch.delenv("PYTHONPATH")
        assert version_of_head() == "0.0.9"
        with ray_node(tmp_path / "member.log", HERE) as member:
            member.process.wait(60)
            refusal = member.refusal()
        assert refusal is not None
        assert f"runs trainyard {trainyard.__version__} and the head of its job 0.0.9" in refusal
        assert head.refusal() is None
