"""Who helps steps back from who trains."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trainyard.launch import priority

AUTOGROUP = Path("/proc/self/autogroup")


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process
        process.kill()


def test_a_process_and_the_session_that_it_leads_step_back(sleeper: "subprocess.Popen[bytes]") -> None:
    priority.lower(sleeper.pid, priority.LOWEST)
    assert psutil.Process(sleeper.pid).nice() == priority.LOWEST
    if AUTOGROUP.exists():
        assert Path(f"/proc/{sleeper.pid}/autogroup").read_text().split()[-1] == str(priority.LOWEST)


def test_nobody_elses_session_steps_back_and_no_priority_rises(sleeper: "subprocess.Popen[bytes]") -> None:
    own = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as beside:
        priority.lower(beside.pid, priority.LOWEST)
        priority.lower(beside.pid, priority.WATCHING)
        assert psutil.Process(beside.pid).nice() == priority.LOWEST
        beside.kill()
    assert (AUTOGROUP.read_text() if AUTOGROUP.exists() else "") == own


def test_a_process_that_has_ended_is_no_error(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.kill()
    sleeper.wait()
    priority.lower(sleeper.pid, priority.LOWEST)


def test_a_thread_that_steps_back_takes_the_process_not_along() -> None:
    found: list[int] = []

    def work() -> None:
        priority.step_back()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [max(before, priority.WATCHING)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
