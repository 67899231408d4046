"""What faults cost: the attempts that they ended, and the budget of restarts. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from trainyard.spec.model import TrainerJob
from trainyard.spec.status import FAULTS, LINE_LENGTH, WORD_LENGTH
from trainyard.storage.layout import CheckpointId
from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.failures import Failure
from trainyard_operator.look import Look
from trainyard_operator.podstate import is_leaving, stage_of
from trainyard_operator.times import moment_of, text_of
from trainyard_operator.world import World

_FIRST_DELAY, _MAX_DELAY = 5.0, 300.0
_KEPT_ATTEMPTS = 10
_KEPT_ENDS = 64
_MOST_ALIKE = 3
"""Times that a pod may end in the same way with nothing committed between: the next time would not differ."""


def note_attempt(job: TrainerJob, status: Object, before: Object, world: World) -> None:
    """Note an attempt that is new, with why the one before ended and how many steps have to be done again.

    A fault that cost no pod is counted here; one that did has been counted with its pod. The deletion of a pod and the
    loss of a node are no faults of the job.
    """
    report = world.progress
    known = before.get("attempts", [])
    since = known[-1]["startTime"] if known else ""
    _note_excuse(status, since, world)
    number = report.get("attempt")
    if not isinstance(number, int) or (known and known[-1]["number"] >= number):
        return
    attempt: Object = {"number": number, "startTime": text_of(world.now)}
    resumed = report.get("resumed")
    if resumed:
        attempt["resumedFrom"] = resumed[:WORD_LENGTH]
    if number > 1:
        attempt["cause"] = _cause(status, known, report)[:LINE_LENGTH]
        reached = max(before.get("step", 0), report.get("reached", 0))
        attempt["lostSteps"] = max(0, reached - CheckpointId.step_of(resumed))
    status["attempts"] = [*known, attempt][-_KEPT_ATTEMPTS:]
    is_fault = bool(report.get("cause")) and not report.get("free")
    # Later than the attempt that is over: at its own start the fault before it was counted.
    counted = known and any(moment > since for moment in status.get("restartTimes", []))
    if is_fault and not counted and not _is_excused(status, since):
        _charge(job, status, world.now)


def count_failures(look: Look) -> float | None:
    """Count failures that are new; seconds until their pods are replaced, or None for at once.

    Counted by the pods' uids, so that a look that is repeated after a crash counts nothing twice.
    """
    status, now = look.status, look.world.now
    handled = status.get("handled", [])
    new = [failure for failure in look.failures if failure.pod["metadata"]["uid"] not in handled]
    if new:
        status["handled"] = [*handled, *(failure.pod["metadata"]["uid"] for failure in new)][-_KEPT_ENDS:]
        look.note.blame(new[0].message)
        _count(look, new)
    if not look.failures or not status.get("retryTime"):
        return None
    left = (moment_of(status["retryTime"]) - now).total_seconds()
    return left if left > 0 else None


def _note_excuse(status: Object, since: str, world: World) -> None:
    """Note once an attempt that a pod was deleted, or is on a lost node: what that breaks is no fault."""
    if _is_excused(status, since):
        return
    if world.has_removed or any(_is_no_fault(pod, world) for pod in world.pods):
        status["excusedTime"] = text_of(world.now)


def _is_no_fault(pod: Object, world: World) -> bool:
    """Whether somebody has deleted a pod, or its node is lost, or was when it ended."""
    if stage_of(pod) == "Failed":
        return world.died_with_node(pod)
    return is_leaving(pod) or world.lost_since(pod) is not None


def _is_excused(status: Object, since: str) -> bool:
    return bool(status.get("excusedTime", "") > since)


def _cause(status: Object, known: list[Object], report: Mapping[str, Any]) -> str:
    """Why the attempt before ended. What Ray tells the driver of a pod that is gone names neither pod nor cause."""
    fault = status.get("fault")
    if fault and known and known[-1].get("cause") == fault:  # that attempt has ended, too, before it made a step
        status.pop("fault")
        fault = None
    otherwise = "the pod that drives was replaced" if known else "the run that is in storage goes on"
    return str(fault or report.get("cause") or otherwise)


def _charge(job: TrainerJob, status: Object, now: datetime) -> None:
    """Count a fault, now."""
    since = now - timedelta(seconds=job.spec.restart.window_seconds)
    recent = [moment for moment in status.get("restartTimes", []) if moment_of(moment) > since]
    status["restartTimes"] = [*recent, text_of(now)][-FAULTS:]
    status["restarts"] = status.get("restarts", 0) + 1


def _count(look: Look, new: list[Failure]) -> None:
    """Count new failures of one look as one fault, and fail the job that has had too many."""
    status, now = look.status, look.world.now
    counted = any(failure.counts for failure in new)
    progressed = status.get("checkpoint", "") != status.get("restartedFrom", "")
    if counted:
        _charge(look.job, status, now)
    alike = _count_alike(status, new, progressed)
    status["stuck"] = 1 if progressed else status.get("stuck", 0) + int(counted)
    status["restartedFrom"] = status.get("checkpoint", "")
    delay = min(_MAX_DELAY, _FIRST_DELAY * 2 ** (status["stuck"] - 2)) if status["stuck"] > 1 else 0.0
    status["retryTime"] = text_of(now + timedelta(seconds=delay))
    restart = look.job.spec.restart
    if alike >= _MOST_ALIKE:
        message = f"{new[0].message} ({alike} times, nothing committed between)"
        look.note.end("Failed", reasons.SAME_END, message)
    elif counted and len(status["restartTimes"]) > restart.max_restarts:
        budget = f"(restart.maxRestarts is {restart.max_restarts} in {restart.window_seconds} s)"
        message = new[0].message if budget in new[0].message else f"{new[0].message} {budget}"
        look.note.end("Failed", reasons.TOO_MANY_RESTARTS, message)


def _count_alike(status: Object, new: list[Failure], progressed: bool) -> int:
    """How many faults in a row, with nothing committed between, have ended in the same way."""
    failure = next((failure for failure in new if failure.counts), None)
    if failure is None:
        return 0
    kind = failure.kind
    if kind is None:
        status.pop("lastEnd", None)
        return 0
    kind = kind[:LINE_LENGTH]
    before = status.get("lastEnd", {})
    same = before.get("kind") == kind and not progressed
    times = before["times"] + 1 if same else 1
    status["lastEnd"] = {"kind": kind, "times": times}
    return int(times)
