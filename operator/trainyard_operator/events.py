"""Which Kubernetes events a change of status makes: pure.

A fault makes one event, with its cause. The steps by which its pod comes back make none.
"""

from typing import NamedTuple

from trainyard_operator import reasons
from trainyard_operator.api import Object

_WARNINGS = frozenset({
    reasons.BACKING_OFF, reasons.CONTAINER_CONFIG, reasons.CREATING, reasons.DEADLINE, reasons.HELD, reasons.IMAGE,
    reasons.INVALID, reasons.JOB_FAILED, reasons.NODE_LOST, reasons.OOM, reasons.PENDING, reasons.POD_LOST,
    reasons.REFUSED, reasons.RESTARTING, reasons.SAME_END, reasons.SIDECAR, reasons.TOO_MANY_RESTARTS,
    reasons.UNSCHEDULABLE,
})  # fmt: skip
"""Reasons that somebody should look at; being asked to leave, suspended or changed is none of them."""
_CHECKPOINT = "CheckpointCommitted"


class Event(NamedTuple):
    """A Kubernetes event to write."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


def events(before: Object, status: Object) -> list[Event]:
    """The events of a change: one for a new state or reason, and one for a new checkpoint."""
    found = []
    if _is_news(before, status):
        kind = "Warning" if status["reason"] in _WARNINGS else "Normal"
        found.append(Event(kind, status["reason"], status.get("message", "")))
    checkpoint = status.get("checkpoint")
    if checkpoint and checkpoint != before.get("checkpoint"):
        found.append(Event("Normal", _CHECKPOINT, f"checkpoint {checkpoint} is committed"))
    return found


def _is_news(before: Object, status: Object) -> bool:
    """Whether a state or its reason is new, and does not follow from what was told before."""
    if not status.get("reason"):
        return False
    if status["state"] == "Restarting":
        return _cause(before) != _cause(status)
    if status["state"] == "Starting" and ("state" not in before or status.get("fault")):
        return False
    return (before.get("state"), before.get("reason")) != (status["state"], status["reason"])


def _cause(status: Object) -> str | None:
    """What a job restarts for, also while its pods come back; None for one that does not restart."""
    if status.get("fault") and status.get("reason") != reasons.HELD:
        return str(status["fault"])
    return status.get("message") if status.get("state") == "Restarting" else None
