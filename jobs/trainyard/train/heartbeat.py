"""A sign of life with each step, for the watcher beside the training process.

It is one write of a few bytes into a file of the node. Between a step and the next one, while a checkpoint is
saved or the model is evaluated, the sign says so: that may take longer than any step.
"""

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_FORMAT = "?qd"


@dataclass(frozen=True)
class Beat:
    """The newest sign."""

    training: bool
    """Whether steps are what is waited for."""
    step: int
    at: float
    """When, by the monotonic clock of the machine (seconds)."""


def file(staging: Path, rank: int) -> Path:
    """Where a rank leaves its signs."""
    return staging / f"heartbeat-{rank}"


def read(path: Path) -> Beat | None:
    """The newest sign; None before the first."""
    try:
        return Beat(*struct.unpack(_FORMAT, path.read_bytes()))
    except (FileNotFoundError, struct.error):
        return None


class Heart:
    """The side that leaves the signs."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    def beat(self, training: bool, step: int) -> None:
        """Leave a sign."""
        os.pwrite(self._descriptor, struct.pack(_FORMAT, training, step, time.monotonic()), 0)
