"""How a training process, an attempt or a pod's part in a job ends.

An ending is made where the failure is known, by what failed, and everybody after that decides by its fields:
the driver whether there is another attempt, the agent which exit code its pod ends with, the operator whether
the pod is replaced. It travels as JSON: from a training process to its Ray worker, to the driver, into
`attempts/<n>-end.json` and into the pod's termination message.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from trainyard.errors import DiskFullError, ExitCode, TrainyardError

Outcome = Literal["Complete", "Stopped", "UserError", "Infrastructure"]
"""Stopped: asked to, with its last step committed. UserError: trying again does not mend it. Infrastructure: it may."""

MESSAGE_BYTES, WHERE_BYTES = 3000, 500
"""Limits of a message and of a place in code, as UTF-8: whatever raises may put megabytes into its words."""
TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a container's termination message; it cuts the rest off, in the middle of the JSON."""
_ELLIPSIS = " … "


class Cause(StrEnum):
    """What failed. The value is stored."""

    NONE = ""
    """Nothing did, or an older version wrote the ending."""
    JOB = "Job"
    """The job's own data, code or arguments, known for sure: trying again does not mend it."""
    CODE = "Code"
    """An exception whose origin is open: the job's code raised it, or a library below it."""
    NETWORK = "Network"
    """A server that the job asks, the hub for example: it cannot be reached, is overloaded, or has an error."""
    STORAGE = "Storage"
    """The object store of the run."""
    RENDEZVOUS = "Rendezvous"
    """The ranks did not meet: one did not come in time, or the port was taken."""
    PEER = "Peer"
    """The ranks lost each other in the middle: one of them has gone."""
    DISK = "Disk"
    """A disk of this machine is full, or fails."""
    SIGNAL = "Signal"
    """A process was killed, or died without words."""
    HANG = "Hang"
    """A process stood still, and the watcher ended it."""
    RAY = "Ray"
    """Ray, or one of its processes."""
    WORKER = "Worker"
    """Ray lost the worker of a rank."""
    NODE = "Node"
    """A node is gone, or Ray's processes there."""
    ASKED = "Asked"
    """The process was asked to end, and there was nothing to save."""


_CAUSES = {str(cause): cause for cause in Cause}
_HOST = frozenset({Cause.DISK, Cause.WORKER, Cause.NODE, Cause.ASKED})
_EXCUSED = frozenset({Cause.NODE, Cause.ASKED})


@dataclass(frozen=True, kw_only=True)
class Ending:
    """One ending. Its message is at most MESSAGE_BYTES long, its place WHERE_BYTES: longer ones lose their middle."""

    outcome: Outcome
    message: str = ""
    """For Complete the URL of the final model; else what happened, and the fix."""
    step: int = 0
    """The steps that were done."""
    where: str = ""
    """File and line that raised the exception, where one did."""
    cause: Cause = Cause.NONE

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shortened(self.message, MESSAGE_BYTES))
        object.__setattr__(self, "where", shortened(self.where, WHERE_BYTES))

    @property
    def host_failed(self) -> bool:
        """Whether what it ran on failed: a node, Ray's worker there, a disk. It says nothing about the job."""
        return self.cause in _HOST

    @property
    def excused(self) -> bool:
        """Whether restart.maxRestarts does not count it: a node was lost, or a process was asked to leave.

        On a cluster the operator counts the death of a pod itself, because it sees pods and nodes.
        """
        return self.cause in _EXCUSED

    @classmethod
    def complete(cls, message: str, step: int = 0) -> "Ending":
        """The job is done. `message`: the URL of the final model."""
        return cls(outcome="Complete", message=message, step=step)

    @classmethod
    def stopped(cls, message: str, step: int = 0) -> "Ending":
        """Ended because somebody asked. `step`: the last one that is committed."""
        return cls(outcome="Stopped", message=message, step=step)

    @classmethod
    def user_error(cls, message: str, step: int = 0, where: str = "") -> "Ending":
        """The job's own data, code or arguments are wrong."""
        return cls(outcome="UserError", message=message, step=step, where=where, cause=Cause.JOB)

    @classmethod
    def fault(cls, cause: Cause, message: str, step: int = 0, where: str = "") -> "Ending":
        """Something failed that may work the next time."""
        return cls(outcome="Infrastructure", message=message, step=step, where=where, cause=cause)

    @classmethod
    def of(cls, error: TrainyardError, step: int = 0) -> "Ending":
        """How an error of ours ends it: what cannot be reached now, and a disk that is full now, may change."""
        if isinstance(error, DiskFullError):
            return cls.fault(Cause.DISK, str(error), step)
        if error.exit_code is ExitCode.UNREACHABLE:
            return cls.fault(Cause.STORAGE, str(error), step)
        if error.exit_code is ExitCode.RETRY:
            return cls.fault(Cause.RAY, str(error), step)
        return cls.user_error(str(error), step)

    def document(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {
            "outcome": self.outcome,
            "message": self.message,
            "step": self.step,
            "where": self.where,
            "cause": str(self.cause),
        }

    def encode(self, limit: int | None = None) -> bytes:
        """One line of JSON in UTF-8. With a limit in bytes the message is shortened until the line fits."""
        document = self.document()
        line = _line(document)
        while limit is not None and len(line) > limit and document["message"]:
            # JSON writes some characters with six bytes, so cut by what is too much and look again.
            length = len(document["message"].encode())
            document["message"] = shortened(document["message"], max(0, length - max(1, (len(line) - limit) // 6)))
            line = _line(document)
        return line

    @classmethod
    def decode(cls, line: str | bytes) -> "Ending":
        """What encode() wrote, also in an older or a later version. Raises ValueError for anything else."""
        return cls.of_document(json.loads(line))

    @classmethod
    def of_document(cls, document: Any) -> "Ending":
        """What document() returned, also in an older or a later version. Raises ValueError for anything else."""
        try:
            outcome = document["outcome"]
        except (TypeError, KeyError):
            raise ValueError("not an ending: it has no outcome") from None
        return cls(
            outcome=outcome,
            message=str(document.get("message", "")),
            step=int(document.get("step", 0)),
            where=str(document.get("where", "")),
            cause=_CAUSES.get(document.get("cause", ""), Cause.NONE),
        )


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` bytes of UTF-8: of a longer one the beginning and the end, which say the most."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    room = limit - len(_ELLIPSIS.encode())
    if room <= 0:
        return ""
    head, tail = data[: room - room // 3], data[len(data) - room // 3 :]
    return head.decode("utf-8", "ignore") + _ELLIPSIS + tail.decode("utf-8", "ignore")


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
