"""Who helps steps back from who trains."""

import os
import subprocess
import sys
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


def test_all_threads_of_a_process_step_back() -> None:
    code = (
        "import os, threading; from trainyard.launch import priority; over = threading.Event()\n"
        "threading.Thread(target=over.wait).start(); priority.step_back(); priority.step_back()\n"
        "print(*{os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir('/proc/self/task')}); over.set()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(max(os.getpriority(os.PRIO_PROCESS, 0), priority.WATCHING))]


def test_what_starts_training_processes_keeps_its_priority() -> None:
    code = (
        "import os, threading; from trainyard.launch import priority; over, ids = threading.Event(), []\n"
        "def wait(): ids.append(threading.get_native_id()); over.wait()\n"
        "threading.Thread(target=wait, name=priority.STARTER).start(); priority.step_back()\n"
        "print(os.getpriority(os.PRIO_PROCESS, ids[0])); over.set()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ended.stdout) == os.getpriority(os.PRIO_PROCESS, 0)
