"""A warm process that is asked to stop at a bad moment."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trainyard.launch.group import run_process
from trainyard.launch.node import Node, Warm, environment_of_training, open_node
from trainyard.protocol.ending import Ending

NOTHING = Ending.stopped("stopped before there was a step to save")


@pytest.fixture
def node() -> Iterator[Node]:
    """A node without a warm process."""
    with open_node() as opened:
        yield opened


@pytest.fixture
def warm(node: Node) -> Iterator[Warm]:
    """One that has hardly begun to import."""
    started = Warm(node)
    yield started
    started.close()


def test_a_save_that_is_asked_for_before_there_is_a_process_is_the_next_ones(node: Node) -> None:
    warm = Warm(node, "tests.train.warm_stub")
    try:
        assert run_process(node, {}) == Ending.complete("not asked")
        warm.save()
        assert run_process(node, {}) == Ending.complete("asked")
        assert run_process(node, {}) == Ending.complete("not asked")
    finally:
        warm.close()


@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["ours", "a number", "a policy"],
)
def test_threads_of_training_wait_as_you_say_or_give_their_core_away(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], spins: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    assert environment_of_training().get("GOMP_SPINCOUNT") == spins


def test_asked_while_it_imports_it_begins_nothing_and_does_not_end(node: Node, warm: Warm) -> None:
    warm.save()
    warm.save_and_stop()
    assert run_process(node, {}) == NOTHING
    assert warm.process.poll() is None


def test_a_process_that_ends_at_the_moment_in_which_its_client_goes_takes_nothing_with_it(
    node: Node, warm: Warm, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")  # on which the process waits
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(node.warm_socket))
        client.sendall(json.dumps({"work": str(tmp_path / "fifo"), "log": str(tmp_path / "log"), "env": {}}).encode())
        client.sendall(b"\n")
        pid = json.loads(client.makefile().readline())["pid"]
        warm.process.send_signal(signal.SIGSTOP)
        becomes(warm.process.pid, psutil.STATUS_STOPPED)
        os.kill(pid, signal.SIGKILL)
        becomes(pid, psutil.STATUS_ZOMBIE)
    warm.process.send_signal(signal.SIGCONT)  # it hears of both at once
    warm.save_and_stop()
    while (told := run_process(node, {})) != NOTHING:
        assert told == -signal.SIGTERM, "another thread of it may hear of the stop, a little later"
    assert warm.process.poll() is None


def becomes(pid: int, status: str) -> None:
    until = time.monotonic() + 10
    while psutil.Process(pid).status() != status:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_one_that_takes_the_place_of_a_killed_one_knows_of_the_stop(node: Node, warm: Warm) -> None:
    keeping = threading.Thread(target=warm.keep)
    keeping.start()
    warm.save_and_stop()
    first = warm.process.pid
    os.kill(first, signal.SIGKILL)
    while (told := run_process(node, {})) != NOTHING:
        assert isinstance(told, Ending), "only the second answers"
        assert "is gone" in told.message
    assert warm.process.pid != first
    warm.close()
    keeping.join(timeout=10)
    assert not keeping.is_alive()
