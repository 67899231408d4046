"""A sign of life with each step, for the watcher beside the training process.

It is one write of a few bytes into a file of the node. It says what is waited for: a first step, a save or an
evaluation may each take longer than any other step.
"""

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

_FORMAT = "bqd32s"
"""What is awaited, the steps done, the time, and the name of the phase."""


_AGAIN_SECONDS = 0.5


class Awaited(IntEnum):
    """What comes next."""

    FIRST_STEP = 0
    STEP = 1
    OTHER = 2
    """A checkpoint that is saved, or an evaluation's next batch."""
    NOTHING = 3
    """Training is over."""
    PHASE = 4
    """The end of a phase before the first step: the data is read, say."""


@dataclass(frozen=True)
class Beat:
    """The newest sign."""

    awaited: Awaited
    step: int
    """The steps done."""
    at: float
    """When, by the monotonic clock of the machine (seconds)."""
    phase: str = ""
    """The phase that it is in, before the first step."""


def file(staging: Path, rank: int) -> Path:
    """Where a rank leaves its signs."""
    return staging / f"heartbeat-{rank}"


def read(path: Path) -> Beat | None:
    """The newest sign; None before the first."""
    try:
        awaited, step, at, phase = struct.unpack(_FORMAT, path.read_bytes())
        return Beat(Awaited(awaited), step, at, phase.rstrip(b"\0").decode("ascii", "replace"))
    except (FileNotFoundError, struct.error):
        return None


class Heart:
    """The side that leaves the signs."""

    mine: "ClassVar[Heart | None]" = None
    """That of this process, from the beginning of its training."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._last = Awaited.FIRST_STEP, 0, ""

    def beat(self, awaited: Awaited, step: int, phase: str = "") -> None:
        """Leave a sign. `phase`: its name, of which 32 characters are kept."""
        self._last = awaited, step, phase
        os.pwrite(self._descriptor, struct.pack(_FORMAT, awaited, step, time.monotonic(), phase.encode()), 0)

    @classmethod
    @contextlib.contextmanager
    def waiting(cls) -> Iterator[None]:
        """Leave signs while this process waits for something that has a time-out of its own, such as storage."""
        over = threading.Event()

        def beat() -> None:
            while cls.mine is not None and not over.wait(_AGAIN_SECONDS):
                cls.mine.again()

        thread = threading.Thread(target=beat, name="waiting", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def again(self) -> None:
        """Leave the last sign once more: what is waited for is not over, and its time is nobody's fault here."""
        self.beat(*self._last)
