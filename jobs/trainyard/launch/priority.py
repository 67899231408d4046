"""How processes that only help step back from the cores for those that train.

All of a node are in one session: Linux may share the cores out among sessions first (autogroup, sched(7)), and what a
process says of itself would then count within its own session alone.
"""

import contextlib
import os

import psutil

WATCHING, LOWEST = 5, 19
"""Nice values: of Ray's processes, which must answer in time also beside strangers that keep the cores busy, and of
work that can wait. A process of 5 still gets a third of what one of 0 gets, one of 10 a tenth."""

_BUSY_LOAD = 2.0
"""Processes that want a core, for each core there is, averaged over a minute."""


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


def step_back() -> None:
    """Lower the priority of all threads of this process, and of those that they start, to that of what only watches."""
    for thread in psutil.Process().threads():
        with contextlib.suppress(OSError):  # on Linux each thread has a nice value of its own (setpriority(2))
            os.setpriority(os.PRIO_PROCESS, thread.id, max(WATCHING, os.getpriority(os.PRIO_PROCESS, thread.id)))


def is_busy() -> bool:
    """Whether others want much more of the cores than there are: what takes only idle time would get none."""
    return os.getloadavg()[0] > _BUSY_LOAD * (os.cpu_count() or 1)
