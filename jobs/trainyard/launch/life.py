"""Signs of life that a process gives by itself: it computes, or moves bytes.

Before the first step there are phases that may take hours (data is encoded, a model is fetched), in code of other
libraries, which says nothing meanwhile. A process that stands still uses neither a core nor a file.
"""

import contextlib
import os
import struct
from pathlib import Path

import psutil

_FORMAT = "d"
_CORE_SHARE, _BYTES_A_SECOND = 0.01, 4096
"""What counts as life: a hundredth of a core, or 4 KiB/s. A process that waits for a lock or for other ranks looks
again ten times a second, which is less than a thousandth of a core."""
_LEAST_SECONDS = 0.03
"""And at least this much of a core: Linux counts in ticks of 10 ms, and one falls now and then on a process that
only looks."""


class Life:
    """What the processes of a node show. The ranks of a node wait for each other, so one that works speaks for all."""

    def __init__(self, shared: Path, every: float) -> None:
        """`shared`: a file of the node, in which the watchers of its ranks keep the newest sign; `every`: seconds."""
        self._shared, self._every = shared, every
        self._before: tuple[float, float, float] | None = None

    def look(self, pid: int, now: float) -> float | None:
        """Look at a rank's process, and at those that it has started; but not more often than every few seconds.

        Returns the time of the newest sign of any rank of the node, None before the first.
        """
        if self._before is None or now - self._before[0] >= self._every:
            before, self._before = self._before, (now, *_used(pid))
            if before is not None and _lives(before, self._before):
                self._keep(now)
        with contextlib.suppress(OSError, struct.error):
            (newest,) = struct.unpack(_FORMAT, self._shared.read_bytes())
            return float(newest)
        return None

    def _keep(self, now: float) -> None:
        with contextlib.suppress(OSError):  # a disk that is full says nothing of the process
            descriptor = os.open(self._shared, os.O_WRONLY | os.O_CREAT, 0o600)
            os.pwrite(descriptor, struct.pack(_FORMAT, now), 0)
            os.close(descriptor)


def _used(pid: int) -> tuple[float, float]:
    """Seconds of CPU, and bytes read and written, of a process and all below it."""
    seconds = moved = 0.0
    try:
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
    except psutil.Error:
        return 0.0, 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            times = process.cpu_times()
            seconds += times.user + times.system
            counters = process.io_counters()
            moved += counters.read_chars + counters.write_chars
    return seconds, moved


def _lives(before: tuple[float, float, float], after: tuple[float, float, float]) -> bool:
    elapsed = after[0] - before[0]
    # Less than before: a process below it has ended, with all that it used.
    busy = abs(after[1] - before[1]) >= max(_CORE_SHARE * elapsed, _LEAST_SECONDS)
    return busy or abs(after[2] - before[2]) >= _BYTES_A_SECOND * elapsed
