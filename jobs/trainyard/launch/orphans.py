"""Processes whose parent ended come to this process, and end with it.

Ray's workers are the raylet's children; at shutdown the raylet does not wait for them, and now and then one
hangs in its C++ destructors for good. Without a parent that looks after it, it would keep its memory until
the machine is restarted.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def adopt() -> None:
    """Become the parent of every orphan below this process. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end() -> None:
    """Kill and reap every child of this process, and those that come to it as they end."""
    # Linux may skip a child in its list while another one ends (proc(5)): only a second look says that none is left.
    while children := _children() or _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> list[int]:
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended
            found += map(int, file.read_text().split())
    return found
