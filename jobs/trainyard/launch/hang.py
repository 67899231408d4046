"""A training process that makes no more steps: its stacks are told, and it is ended, so that a new attempt begins.

The stacks come from the process itself (faulthandler, on SIGUSR1), not from a debugger: pods of the restricted
profile may not trace another process.
"""

import contextlib
import math
import os
import signal
import statistics
import threading
import time
from collections import deque
from pathlib import Path
from typing import Self

from trainyard.train.heartbeat import Awaited, Beat, read

_POLL_SECONDS = 0.5
_STEPS = 10
"""A step that takes as long as ten is one that does not end."""
_KEPT = 64
_LONG_SECONDS = 1800.0
"""A first step compiles kernels and meets the other ranks; a save uploads."""
_OTHERS_SECONDS = 3.0
"""Every rank that waits for the same step tells its stack before the group is taken down."""


class HangWatch:
    """Watches one training process for as long as the context is open."""

    def __init__(self, beats: Path, floor: float) -> None:
        self.beats, self.floor = beats, floor
        self.pid: int | None = None
        """The process, once it is known."""
        self.verdict = ""
        """Why it was ended; empty while it was not."""
        self._durations: deque[float] = deque(maxlen=_KEPT)
        self._last: Beat | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="hang watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def limit(self, awaited: Awaited = Awaited.STEP) -> float:
        """Seconds without a sign that are too long."""
        if awaited is Awaited.NOTHING:
            return math.inf
        if awaited is not Awaited.STEP:
            return max(self.floor, _LONG_SECONDS)
        return max(self.floor, _STEPS * statistics.median(self._durations or [0.0]))

    def look(self, beat: Beat | None, now: float) -> bool:
        """Take the newest sign. Returns whether the process hangs."""
        if beat is None:
            return False
        last = self._last
        if last is not None and last.awaited is Awaited.STEP and beat.step > last.step:
            self._durations.append((beat.at - last.at) / (beat.step - last.step))
        self._last = beat
        return now - beat.at > self.limit(beat.awaited)

    def _loop(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            if self.pid is not None and self.look(read(self.beats), time.monotonic()):
                assert self._last is not None
                silent = f"no sign of life for {self.limit(self._last.awaited):.0f} s after step {self._last.step}"
                self._end(self.pid, silent)
                return

    def _end(self, pid: int, why: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
            self._done.wait(_OTHERS_SECONDS)
            self.verdict = f"{why}: taken to hang; the stacks of its processes are in their logs"
            os.kill(pid, signal.SIGKILL)
