"""How a group of ranks ended, from how each of them ended and from what Ray says of its workers."""

import signal
from pathlib import Path

from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerGroupStartupFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from trainyard.protocol import foreign
from trainyard.protocol.ending import Cause, Ending

_LINE = 300
"""Characters of a library's last line in a message of ours."""
_FIRST = (Cause.JOB, Cause.CODE, Cause.DISK)
_LAST = (Cause.RENDEZVOUS, Cause.ASKED, Cause.PEER)
"""Of several ranks that failed, whose ending is the group's: that of one of the first, and of the last only when
there is no other. A rank that waited for the others fails because they did."""


class RankFailedError(RuntimeError):
    """What a Ray worker raises when its training process failed; Ray carries it to the driver."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


def died(status: int, log: Path) -> Ending:
    """The ending of a training process that died without one. `status`: negative for the signal that ended it."""
    if status == -signal.SIGTERM:
        return Ending.fault(Cause.ASKED, "the training process was terminated (SIGTERM)")
    if status == -signal.SIGKILL:
        return Ending.fault(Cause.SIGNAL, "the training process was killed (SIGKILL; out of memory?)")
    if status < 0:
        name = signal.Signals(-status).name
        return Ending.fault(Cause.SIGNAL, f"the training process died of {name}; its stacks are in its log")
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    words = f"; its last line: {last[0][:200]}" if last and status > 0 else ""
    return Ending.fault(Cause.SIGNAL, f"the training process ended with status {status}{words}")


def waits_for_others(ending: Ending) -> bool:
    """Whether a rank only ended because another one had."""
    return ending.cause in (Cause.PEER, Cause.RENDEZVOUS)


def first_of(endings: list[Ending]) -> Ending:
    """What failed first, of the endings of ranks that failed."""

    def order(ending: Ending) -> int:
        if ending.cause in _FIRST:
            return _FIRST.index(ending.cause)
        return len(_FIRST) + 1 + (_LAST.index(ending.cause) if ending.cause in _LAST else -1)

    return min(endings, key=order)


def root_cause(error: WorkerGroupError) -> Ending:
    """The ending of a group of which some workers failed."""
    return first_of([_of_worker(failure) for failure in error.worker_failures.values()])


def of_ray(error: BaseException) -> Ending:
    """The ending of a group that Ray could not start, or lost."""
    if isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupFailedError):
        return Ending.fault(Cause.WORKER, "a worker was lost while the workers started")
    text = str(error).strip()
    loss = foreign.ray_loss(text)
    if loss is not None:
        cause, words = loss
        return Ending.fault(cause, words)
    last = text.splitlines()[-1].strip() if text else type(error).__name__
    return Ending.fault(Cause.RAY, f"Ray: {last[:_LINE]}")


def _of_worker(failure: BaseException) -> Ending:
    own = failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure
    return own.ending if isinstance(own, RankFailedError) else of_ray(failure)
