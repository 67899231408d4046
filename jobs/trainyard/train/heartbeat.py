"""A sign of life with each step, for the watcher beside the training process.

It is one write of a few bytes into a file of the node. It says what is waited for: a first step, a save or an
evaluation may each take longer than any other step.
"""

import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_FORMAT = "bqd"


class Awaited(IntEnum):
    """What comes next."""

    FIRST_STEP = 0
    STEP = 1
    OTHER = 2
    """A checkpoint that is saved, or an evaluation's next batch."""
    NOTHING = 3
    """Training is over."""


@dataclass(frozen=True)
class Beat:
    """The newest sign."""

    awaited: Awaited
    step: int
    """The steps done."""
    at: float
    """When, by the monotonic clock of the machine (seconds)."""


def file(staging: Path, rank: int) -> Path:
    """Where a rank leaves its signs."""
    return staging / f"heartbeat-{rank}"


def read(path: Path) -> Beat | None:
    """The newest sign; None before the first."""
    try:
        awaited, step, at = struct.unpack(_FORMAT, path.read_bytes())
        return Beat(Awaited(awaited), step, at)
    except (FileNotFoundError, struct.error):
        return None


class Heart:
    """The side that leaves the signs."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._last = Awaited.FIRST_STEP, 0

    def beat(self, awaited: Awaited, step: int) -> None:
        """Leave a sign."""
        self._last = awaited, step
        os.pwrite(self._descriptor, struct.pack(_FORMAT, awaited, step, time.monotonic()), 0)

    def again(self) -> None:
        """Leave the last sign once more: what is waited for is not over, and its time is nobody's fault here."""
        self.beat(*self._last)
