"""How processes that only help step back from the cores for those that train."""

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil

WATCHING, LOWEST = 10, 19
"""Nice values: of Ray's processes, which must answer in time, and of work that can wait."""
_TRIES, _PAUSE = 10, 0.1


def lower(pid: int, nice: int) -> None:
    """Lower the priority of a process, and that of its session if it leads one. A process that is lower stays so.

    Linux may share the cores out among sessions first (autogroup, sched(7)); the nice value of a process then counts
    within its session alone, and a new session is as much as that of the training. A process that has ended, or a
    kernel that refuses, is no error: a nicety is not worth an attempt.
    """
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        process.nice(max(nice, process.nice()))
        if os.getsid(pid) == pid:
            _lower_session(Path(f"/proc/{pid}/autogroup"), str(nice))


def step_back() -> None:
    """Lower the priority of this thread, and of those that it starts, to that of what only watches."""
    with contextlib.suppress(OSError):
        thread = threading.get_native_id()  # on Linux each thread has a nice value of its own (setpriority(2))
        os.setpriority(os.PRIO_PROCESS, thread, max(WATCHING, os.getpriority(os.PRIO_PROCESS, thread)))


def _lower_session(file: Path, nice: str) -> None:
    for _ in range(_TRIES):
        try:
            file.write_text(nice)
        except BlockingIOError:  # not root, and somebody else asked within the last tenth of a second
            time.sleep(_PAUSE)
        else:
            return
