"""What failed when a training process raised an exception: the job, or the machine below it.

The type of the exception decides, or the type of an exception that it came from, because libraries wrap what they
catch. An exception of unknown type is the job's own before the run's first step, when only the job's data and code
have run. After the first step, one more attempt shows whether it comes back.
"""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import OfflineModeIsEnabled

from trainyard.errors import DiskFullError, JobError, TrainyardError
from trainyard.protocol import foreign
from trainyard.protocol.ending import Cause, Ending
from trainyard.storage.disk import full
from trainyard.train import mend
from trainyard.train.work import Work

_BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 521, 522, 523, 524, 529})
"""HTTP status by which a server says that the same request may work later (RFC 9110, and what proxies add)."""
_NETWORK_TYPES = (
    ("httpx2", "TransportError"),
    ("httpx", "TransportError"),
    ("requests.exceptions", "ConnectionError"),
    ("requests.exceptions", "Timeout"),
    ("requests.exceptions", "ChunkedEncodingError"),
    ("urllib3.exceptions", "TimeoutError"),
    ("urllib3.exceptions", "ProtocolError"),
    ("aiohttp.client_exceptions", "ClientConnectionError"),
    ("aiohttp.client_exceptions", "ClientPayloadError"),
    ("urllib.error", "URLError"),
    ("socket", "gaierror"),
    ("builtins", "ConnectionError"),
    ("builtins", "TimeoutError"),
)
"""Module and name of exceptions that say: a server was not reached, or went away."""
_CAUSE_OF_ERRNO = {
    errno.EADDRINUSE: Cause.RENDEZVOUS,
    errno.EADDRNOTAVAIL: Cause.NETWORK,
    errno.ENETDOWN: Cause.NETWORK,
    errno.ENETUNREACH: Cause.NETWORK,
    errno.EHOSTUNREACH: Cause.NETWORK,
    errno.EIO: Cause.DISK,
    errno.ESTALE: Cause.DISK,
    errno.EREMOTEIO: Cause.DISK,
}
_FULL_BYTES = 64 * 1024 * 1024
"""A disk with less room is taken for full when a write to it failed without a reason."""
_WORDS = {
    Cause.PEER: "the ranks lost each other: ",
    Cause.RENDEZVOUS: "the ranks did not meet: ",
    Cause.NETWORK: "a server cannot be reached, or is overloaded: ",
}


def ending_of(error: BaseException, step: int, work: Work) -> Ending:
    """How an exception ends a training process that has done `step` steps of the run."""
    if work.resumed is not None:
        step = max(step, work.resumed.step)  # it may have come before the checkpoint was loaded
    if isinstance(error, TrainyardError):
        return _of_ours(error, step, work)
    disk = _disk_full(error, Path(work.staging))
    if disk is not None:
        return _of_disk(disk, step, work)
    cause, message, where = cause_of(error), words_of(error), _where(error)
    if work.resume_folder is not None and mend.loading(error) == work.resume_folder:
        given = work.job.spec.resume_from
        if work.resumed is None and cause in (Cause.JOB, Cause.CODE) and not _may_load_next_time(error):
            words = "cannot be loaded. Is it damaged, or of another model or strategy than this job's?"
            return Ending.user_error(f"spec.resumeFrom: {given} {words} {message}", step, where)
        message = f"{work.resumed or given} cannot be loaded: {message}"
    if cause is Cause.JOB:
        return Ending.user_error(message, step, where)
    if cause is Cause.CODE and step == 0:
        return Ending(outcome="UserError", message=message, where=where, cause=cause)
    return Ending.fault(cause, f"{_WORDS.get(cause, '')}{message}", step, where)


def _of_ours(error: TrainyardError, step: int, work: Work) -> Ending:
    """How an error of ours ends a training process: with its own message, and the cause of what it came from.

    A model that cannot be loaded may be wrong (the job's error), or its hub may be away (a fault).
    """
    if isinstance(error, DiskFullError):
        return _of_disk(error, step, work)
    ending = Ending.of(error, step)
    cause = cause_of(error)
    return ending if cause is ending.cause else Ending.fault(cause, str(error), step)


def _of_disk(error: DiskFullError, step: int, work: Work) -> Ending:
    """A disk that was full before anything was trained has never held what the job needs."""
    if step == 0 and work.attempt == 1 and work.job.spec.script is None:
        return Ending.user_error(str(error))
    return Ending.of(error, step)


def _may_load_next_time(error: BaseException) -> bool:
    """Whether a checkpoint that fails to load may load later: memory was short, or a file could not be read."""
    return isinstance(error, MemoryError | OSError | torch.OutOfMemoryError)


def cause_of(error: BaseException) -> Cause:
    """What failed, by an exception and those that it came from, the outermost first; CODE when none of them tells."""
    is_ours = False
    for each in _chain(error):
        if isinstance(each, JobError):
            is_ours = True  # it says what cannot be done; what it came from says whose fault that is
            continue
        cause = _own_cause(each)
        if cause is not None:
            return cause
    return Cause.JOB if is_ours else Cause.CODE


def words_of(error: BaseException) -> str:
    """An exception in one line: its type, and the first and the last line of its message, which say the most."""
    summary = traceback.TracebackException.from_exception(error)
    summary.__notes__ = None  # they are not the exception's own words
    lines = [line.strip() for line in "".join(summary.format_exception_only()).splitlines() if line.strip()]
    if isinstance(error, SyntaxError):
        return f"{lines[-1]} ({lines[0]})"  # Python writes the place first
    return lines[0] if lines[0] == lines[-1] else f"{lines[0]} … {lines[-1]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came from, the outermost first."""
    seen = set[int]()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__  # `from None` hides it from readers only


def _own_cause(error: BaseException) -> Cause | None:
    # Not there; or HF_HUB_OFFLINE is set, and it is not in the cache.
    if isinstance(error, DatasetNotFoundError | OfflineModeIsEnabled):
        return Cause.JOB
    status = _http_status(error)
    if status is not None:
        return Cause.NETWORK if status in _BUSY_STATUS else Cause.JOB
    if isinstance(error, TrainyardError):
        return Ending.of(error).cause
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return Cause.RENDEZVOUS
    if isinstance(error, dist.DistBackendError):
        return Cause.PEER
    if _is_network(error):
        return Cause.NETWORK
    if isinstance(error, OSError) and error.errno in _CAUSE_OF_ERRNO:
        return _CAUSE_OF_ERRNO[error.errno]
    if isinstance(error, RuntimeError):
        text = str(error)
        if foreign.is_peer_lost(text):
            return Cause.PEER
        if foreign.is_loader_killed(text):
            return Cause.SIGNAL
    return None


def _http_status(error: BaseException) -> int | None:
    """The status of a server's answer, as the libraries of HTTP keep it in their exceptions; None without one."""
    response = getattr(error, "response", None)
    candidates = (getattr(response, "status_code", None), getattr(error, "status", None), getattr(error, "code", None))
    module = type(error).__module__.partition(".")[0]
    if module not in ("httpx2", "httpx", "requests", "huggingface_hub", "aiohttp", "urllib"):
        return None
    for value in candidates:
        if isinstance(value, int) and value >= 400:
            return value
    return None


def _is_network(error: BaseException) -> bool:
    for module, name in _NETWORK_TYPES:
        # What was not imported has raised nothing.
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return True
    return False


def _disk_full(error: BaseException, staging: Path) -> DiskFullError | None:
    """That a disk is full, if an error or what it came from says so; where it does not say which, that of staging."""
    for each in _chain(error):
        if isinstance(each, DiskFullError):
            return each
        text = str(each)
        if foreign.is_disk_full(text) or (isinstance(each, OSError) and each.errno == errno.ENOSPC):
            return full(staging)
        if foreign.is_write_failed(text):
            usage = os.statvfs(staging if staging.exists() else "/")
            return full(staging) if usage.f_bavail * usage.f_frsize < _FULL_BYTES else None
    return None


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
