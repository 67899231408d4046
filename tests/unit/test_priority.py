"""Who helps steps back from who trains."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from trainyard.launch import priority


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_steps_back_and_its_priority_never_rises(sleeper: "subprocess.Popen[bytes]") -> None:
    priority.lower(sleeper.pid, priority.LOWEST)
    priority.lower(sleeper.pid, priority.WATCHING)
    assert psutil.Process(sleeper.pid).nice() == priority.LOWEST


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="SCHED_IDLE is Linux's")
def test_who_takes_only_what_is_idle_starts_threads_and_processes_that_do_the_same() -> None:
    code = (
        "import os, subprocess, sys, threading; from trainyard.launch import priority; priority.only_idle()\n"
        "threading.Thread(target=lambda: print(os.sched_getscheduler(threading.get_native_id()))).start()\n"
        "subprocess.run([sys.executable, '-c', 'import os; print(os.sched_getscheduler(0))'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(os.SCHED_IDLE)] * 2


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
