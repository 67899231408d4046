"""The uploader's turn of the cores."""

import itertools
import os
import time

import psutil
import pytest

from trainyard.launch import priority, uploads
from trainyard.launch.node import open_node


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="SCHED_IDLE is Linux's")
@pytest.mark.parametrize(("ran", "starves"), [(0.001, True), (0.1, False)], ids=["gets nothing", "gets a tenth"])
def test_uploader_that_gets_no_core_takes_its_turn(monkeypatch: pytest.MonkeyPatch, ran: float, starves: bool) -> None:
    looks = itertools.count()
    monkeypatch.setattr(uploads, "_STARVED_SECONDS", 0.5)

    def turns(pid: int) -> tuple[float, float]:
        look = next(looks)
        return ran * look, 0.5 * look

    monkeypatch.setattr(priority, "turns", turns)
    with open_node() as node:
        uploader = uploads.Uploads(node)
        first = uploader.process
        try:
            until = time.monotonic() + (60 if starves else 2)
            while uploader.process is first and time.monotonic() < until:
                time.sleep(0.05)
            assert (uploader.process is not first) is starves
            assert (psutil.Process(uploader.process.pid).cmdline()[-1] == "turns") is starves
        finally:
            uploader.close()


def test_process_that_wants_a_core_and_gets_it_runs() -> None:
    ran, waited = priority.turns(os.getpid())
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    ran_now, waited_now = priority.turns(os.getpid())
    assert ran_now - ran >= 0.19
    assert waited_now >= waited


def test_process_that_has_ended_has_no_turns() -> None:
    assert priority.turns(2**22 + 1) == (0.0, 0.0)
