"""The head of a job's Ray cluster that is slow to come up, by processes that stand for `ray start`."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import cast

import pytest

from trainyard.launch.raynode import Head, RayNode
from trainyard.launch.raystart import SECONDS


@dataclass
class Node:
    """What Head knows of a RayNode."""

    process: "subprocess.Popen[bytes]"

    def last_words(self) -> str:
        return "raylet: exit code 1"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Starts:
    """Starts of `ray start`: the first ones end by themselves, the last stays."""

    def __init__(self, failing: int) -> None:
        self.failing, self.seconds, self.nodes = failing, list[float](), list[Node]()
        self.stays = threading.Event()

    def begin(self, seconds: float) -> RayNode:
        code = "input()" if len(self.seconds) == self.failing else "raise SystemExit(1)"
        self.seconds.append(seconds)
        self.nodes.append(Node(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)))
        if len(self.nodes) > self.failing:
            self.stays.set()
        return cast("RayNode", self.nodes[-1])


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_head_that_is_slow_is_started_again_with_more_time(failing: int) -> None:
    starts, notes = Starts(failing), list[str]()
    head = Head(starts.begin, notes.append)
    words: list[str] = []
    keeping = threading.Thread(target=lambda: words.append(head.supervise()))
    keeping.start()
    try:
        assert starts.stays.wait(30)
        head.is_up.set()
        assert not head.is_lost.is_set()
    finally:
        starts.nodes[-1].end()
        keeping.join(30)
    assert starts.seconds == [SECONDS * 2**number for number in range(failing + 1)]
    assert len(notes) == failing
    assert (words, head.is_lost.is_set()) == (["raylet: exit code 1"], True), "once up, its death is the pod's"


def test_head_that_never_comes_up_ends_its_pod() -> None:
    starts, notes = Starts(100), list[str]()
    head = Head(starts.begin, notes.append)
    assert head.supervise() == "raylet: exit code 1"
    assert head.is_lost.is_set()
    assert len(starts.seconds) == 4
    assert notes[0] == "Ray did not start (raylet: exit code 1); it is tried again, with more time"
