"""A training process that stands still: its stacks go into its log, and it is ended, so that a new attempt begins.

The stacks come from the process itself (faulthandler, on SIGUSR1), not from a debugger: pods of the restricted
profile may not trace another process.

From its first step on a process says what it waits for (`train/heartbeat`), and how long that may take is known. In the
phases before, and in the first step, it also lives while it computes or moves bytes (`launch/life`): reading, encoding
or fetching may take hours. A node cannot see what the ranks of other nodes do, for which its own may wait.
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

from trainyard.launch.life import Life
from trainyard.train.heartbeat import Awaited, Beat, read

_POLL_SECONDS = 0.5
_STEPS = 10
"""A step that takes as long as ten is one that does not end."""
_KEPT = 64
_LONG_SECONDS = 1800.0
"""A first step compiles kernels and meets the other ranks, which may still fetch the model; a save uploads."""
_BEFORE_STEPS = (Awaited.PHASE, Awaited.FIRST_STEP)
_LOOKS_PER_HANG = 20
"""How many times a process is checked for life within restart.hangSeconds."""
_MAX_LOOK_SECONDS = 15.0
"""The longest time between two of these checks."""
_OTHERS_SECONDS = 3.0
"""Every rank that waits for the same step tells its stack before the group is taken down."""


class HangWatch:
    """Watches one training process for as long as the context is open."""

    def __init__(self, beats: Path, floor: float, alone: bool = True) -> None:
        """`floor`: restart.hangSeconds; `alone`: whether all ranks of the job are on this node."""
        self.beats, self.floor, self.alone = beats, floor, alone
        self.pid: int | None = None
        """The process, once it is known."""
        self.verdict = ""
        """Why it was ended; empty while it was not."""
        self._durations: deque[float] = deque(maxlen=_KEPT)
        self._last: Beat | None = None
        self._life = Life(beats.parent / "alive", min(floor / _LOOKS_PER_HANG, _MAX_LOOK_SECONDS))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="hang watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def step(self) -> int:
        """The steps that the process had done when it gave its last sign."""
        return self._last.step if self._last is not None else 0

    def limit(self, awaited: Awaited = Awaited.STEP) -> float:
        """Seconds without a sign that are too long."""
        if awaited is Awaited.NOTHING:
            return math.inf
        if awaited is Awaited.STEP:
            return max(self.floor, _STEPS * statistics.median(self._durations or [0.0]))
        if awaited in _BEFORE_STEPS and self.alone:
            return self.floor
        return max(self.floor, _LONG_SECONDS)

    def look(self, beat: Beat | None, now: float, alive: float | None = None) -> bool:
        """Take the newest sign. Returns whether the process hangs.

        `alive`: when a rank of this node computed or moved bytes last; it counts before the first step is done.
        """
        if beat is None:
            return False
        last = self._last
        if last is not None and last.awaited is Awaited.STEP and beat.step > last.step:
            self._durations.append((beat.at - last.at) / (beat.step - last.step))
        self._last = beat
        newest = beat.at
        if beat.awaited in _BEFORE_STEPS and alive is not None:
            newest = max(newest, alive)
        # A first step computes all the time when ranks spin in a collective that never comes to its end.
        endless = beat.awaited is Awaited.FIRST_STEP and now - beat.at > max(self.floor, _LONG_SECONDS)
        return endless or now - newest > self.limit(beat.awaited)

    def _loop(self) -> None:
        begun: Beat | None = None
        while not self._done.wait(_POLL_SECONDS):
            if self.pid is None:
                continue
            now = time.monotonic()
            begun = begun or Beat(Awaited.PHASE, 0, now, "starting")
            beat = read(self.beats) or begun
            alive = self._life.look(self.pid, now) if beat.awaited in _BEFORE_STEPS else None
            if self.look(beat, now, alive):
                place = f"while {beat.phase}" if beat.awaited is Awaited.PHASE else f"after step {beat.step}"
                self._end(self.pid, f"no sign of life for {self.limit(beat.awaited):.0f} s {place}")
                return

    def _end(self, pid: int, why: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
            self._done.wait(_OTHERS_SECONDS)
            self.verdict = f"{why}: taken to hang; the stacks of its processes are in their logs"
            os.kill(pid, signal.SIGKILL)
