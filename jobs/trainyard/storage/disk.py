"""The disk of this machine, where checkpoints are staged and restored, and inputs are kept."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from trainyard.errors import DiskFullError


@contextlib.contextmanager
def room_on(place: Path, variable: str = "TMPDIR") -> Iterator[None]:
    """Within, a full disk is an error with the fix: the environment variable names another. Raises DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise full(place, variable) from error


def full(place: Path, variable: str = "TMPDIR") -> DiskFullError:
    """The error of a disk that has no room for something there."""
    return DiskFullError(f"no space left on the disk of {place}: free space there, or set {variable} to a larger disk")
