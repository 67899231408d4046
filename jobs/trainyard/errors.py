"""The exceptions that reach a user, each with the exit code that the process ends with.

The codes are documented in README.md and stable. Every message says where, what, and the fix.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a `trainyard` process ends with."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID_MANIFEST = 3
    NOT_FOUND = 4
    JOB_FAILED = 5
    TIMED_OUT = 6
    UNREACHABLE = 7
    RETRY = 75
    INTERRUPTED = 130
    STOPPED = 143


class TrainyardError(Exception):
    """An error whose message is meant for the person at the terminal: no traceback is shown for it."""

    exit_code = ExitCode.UNEXPECTED


class ManifestError(TrainyardError):
    """The manifest cannot be used; holds every mistake found, not only the first."""

    exit_code = ExitCode.INVALID_MANIFEST


class MissingExtraError(TrainyardError):
    """An optional part of the distribution that is needed is not installed."""

    exit_code = ExitCode.USAGE


class BusyError(TrainyardError):
    """Another process does already what was asked for: nothing has failed."""

    exit_code = ExitCode.USAGE


class NotFoundError(TrainyardError):
    """A run, a checkpoint, a file or an object is not there."""

    exit_code = ExitCode.NOT_FOUND


class StorageError(TrainyardError):
    """The storage cannot be reached, read or written."""

    exit_code = ExitCode.UNREACHABLE


class StorageFullError(StorageError):
    """The disk of a storage folder is full: trying again does not mend it."""

    exit_code = ExitCode.JOB_FAILED


class DiskFullError(TrainyardError):
    """The disk of this machine has no room to stage or restore a checkpoint: whatever fills it may go away."""

    exit_code = ExitCode.JOB_FAILED


class JobError(TrainyardError):
    """The job failed for a reason that trying again does not mend: bad data or bad code."""

    exit_code = ExitCode.JOB_FAILED
