"""Pods of one job that run different versions of trainyard."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainyard
from trainyard.launch.raynode import RayNode, await_head, reachable

HERE = "127.0.0.1"


@contextlib.contextmanager
def ray_node(log: Path, head: str | None = None) -> Iterator[RayNode]:
    node = RayNode(1, 0, HERE, log, head)
    try:
        yield node
    finally:
        node.end()


def test_member_of_another_version_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reachable(HERE), "another Ray cluster runs on this machine"
    # Python imports it at its start: the head's process is one of an older version.
    (tmp_path / "sitecustomize.py").write_text("import trainyard\ntrainyard.__version__ = '0.0.9'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ray_node(tmp_path / "head.log") as head:
        monkeypatch.delenv("PYTHONPATH")
        assert await_head(HERE, lambda: not head.alive()) == "0.0.9"
        with ray_node(tmp_path / "member.log", HERE) as member:
            member.process.wait(60)
            refusal = member.refusal()
        assert refusal is not None
        assert f"runs trainyard {trainyard.__version__} and the head of its job 0.0.9" in refusal
        assert head.refusal() is None
