"""How processes that only help step back from the cores for those that train.

All of a node are in one session: Linux may share the cores out among sessions first (autogroup, sched(7)), and what a
process says of itself would then count within its own session alone.
"""

import contextlib
import os
import threading
from pathlib import Path

import psutil

WATCHING, LOWEST = 5, 19
"""Nice values: of Ray's processes, which must answer in time also beside strangers that keep the cores busy, and of
work that can wait. A process of 5 still gets a third of what one of 0 gets, one of 10 a tenth."""

_BUSY_LOAD = 4.0
"""Threads that want a core, for each core there is. A run that trains alone has one or two."""


def lower(pid: int, nice: int) -> None:
    """Lower the priority of a process. A process that is lower stays so.

    One that has ended, or a kernel that refuses, is no error: a nicety is not worth an attempt.
    """
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        process.nice(max(nice, process.nice()))


def only_idle() -> None:
    """Take only what nothing else takes of a core from now on; said before this process has threads.

    A thread of training that wakes is put on a core as if nothing ran there (SCHED_IDLE, sched(7)), where a nice value
    would make it wait for its turn. A full core still leaves such a process one part in 300.
    """
    lower(os.getpid(), LOWEST)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


STARTER = "warm watch"
"""Name of the thread that starts a process which trains: that process inherits the thread's priority."""


def step_back() -> None:
    """Lower the priority of this process's threads, but of STARTER, to that of processes that only watch."""
    starters = {thread.native_id for thread in threading.enumerate() if thread.name == STARTER}
    for thread in psutil.Process().threads():
        if thread.id in starters:
            continue
        with contextlib.suppress(OSError):  # on Linux each thread has a nice value of its own (setpriority(2))
            os.setpriority(os.PRIO_PROCESS, thread.id, max(WATCHING, os.getpriority(os.PRIO_PROCESS, thread.id)))


def turns(pid: int) -> tuple[float, float]:
    """CPU seconds of all threads of a process, and the longest time in seconds that one thread waited for a core.

    Zeros where the kernel does not say, or the process has ended. Source: /proc/PID/schedstat, sched-stats.rst.
    """
    ran = waited = 0.0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # the thread ended
            on_core, runnable, _ = file.read_text().split()
            ran += int(on_core) / 1e9
            waited = max(waited, int(runnable) / 1e9)
    return ran, waited


def is_busy() -> bool:
    """Whether far more threads want a core than there are cores, so that idle priority would get no time."""
    waiting = os.getloadavg()[0]
    with contextlib.suppress(OSError, ValueError):  # Linux also says how many want a core at this moment
        waiting = max(waiting, float(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
    return waiting > _BUSY_LOAD * (os.cpu_count() or 1)
