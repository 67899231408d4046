"""How processes that only help step back from the cores for those that train."""

import contextlib
import os
from pathlib import Path

import psutil

WATCHING, LOWEST = 10, 19
"""Nice values: of Ray's processes, which must answer in time, and of work that can wait."""


def lower(pid: int, nice: int) -> None:
    """Lower the priority of a process, and that of its session if it leads one. A priority that is lower stays.

    Linux may share the cores out among sessions first (autogroup, sched(7)); the nice value of a process then counts
    within its session alone, and a new session is as much as that of the training. A process that has ended, or a
    kernel that refuses, is no error: a nicety is not worth an attempt.
    """
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        process.nice(max(nice, process.nice()))
        if os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
