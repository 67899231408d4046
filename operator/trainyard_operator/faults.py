"""What faults cost: the attempts that they ended, and the budget of restarts. Pure."""

from datetime import datetime, timedelta

from trainyard.spec.model import TrainerJob
from trainyard.spec.status import FAULTS, LINE_LENGTH, WORD_LENGTH
from trainyard.storage.layout import CheckpointId
from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.conditions import Conditions
from trainyard_operator.podstate import Failure, is_asked_to_leave, phase_of
from trainyard_operator.times import moment_of, text_of
from trainyard_operator.world import World

_FIRST_DELAY, _MAX_DELAY = 5.0, 300.0
_KEPT_ATTEMPTS = 10


def note_attempt(job: TrainerJob, status: Object, before: Object, world: World) -> None:
    """Note an attempt that is new, with why the one before ended and how many steps have to be done again.

    A fault that cost no pod is counted here; one that did has been counted with its pod. What asks pods to go, and the
    loss of a node, is no fault of the job.
    """
    told, known = world.progress, before.get("attempts", [])
    number, since = told.get("attempt"), known[-1]["startTime"] if known else ""
    excused = status.get("excusedTime", "") > since
    taken = (pod for pod in world.pods if phase_of(pod) != "Failed")
    if not excused and any(is_asked_to_leave(pod) or world.lost_since(pod) for pod in taken):
        status["excusedTime"] = text_of(world.now)
    if not isinstance(number, int) or (known and known[-1]["number"] >= number):
        return
    attempt: Object = {"number": number, "startTime": text_of(world.now)}
    resumed = told.get("resumed")
    if resumed:
        attempt["resumedFrom"] = resumed[:WORD_LENGTH]
    if number > 1:
        otherwise = "the pod that drives was replaced" if known else "the run that is in storage goes on"
        # What Ray tells the driver of a pod that is gone names neither pod nor cause.
        attempt["cause"] = str(status.pop("fault", None) or told.get("cause") or otherwise)[:LINE_LENGTH]
        done = max(before.get("step", 0), told.get("reached", 0))
        attempt["lostSteps"] = max(0, done - CheckpointId.step_of(resumed))
    status["attempts"] = [*known, attempt][-_KEPT_ATTEMPTS:]
    fault = bool(told.get("cause")) and not told.get("free")
    # Later than the attempt that is over: at its own start the fault before it was counted.
    counted = known and any(moment > since for moment in status.get("restartTimes", []))
    if fault and not counted and not excused:
        _charge(job, status, world.now)


def _charge(job: TrainerJob, status: Object, now: datetime) -> None:
    """Count a fault, now."""
    since = now - timedelta(seconds=job.spec.restart.window_seconds)
    recent = [moment for moment in status.get("restartTimes", []) if moment_of(moment) > since]
    status["restartTimes"] = [*recent, text_of(now)][-FAULTS:]
    status["restarts"] = status.get("restarts", 0) + 1


def count_failures(job: TrainerJob, note: Conditions, failures: list[Failure], world: World) -> float | None:
    """Count failures that are new; seconds until their pods are replaced, or None for at once.

    Counted by the pods' uids, so that a look that is repeated after a crash counts nothing twice.
    """
    status = note.status
    known = status.get("handled", [])
    new = [found for found in failures if found.pod["metadata"]["uid"] not in known]
    if new:
        counted = any(found.counts for found in new)
        if counted:
            _charge(job, status, world.now)
        progressed = status.get("checkpoint", "") != status.get("restartedFrom", "")
        status["stuck"] = 1 if progressed else status.get("stuck", 0) + int(counted)
        status["restartedFrom"] = status.get("checkpoint", "")
        delay = min(_MAX_DELAY, _FIRST_DELAY * 2 ** (status["stuck"] - 2)) if status["stuck"] > 1 else 0.0
        status["retryTime"] = text_of(world.now + timedelta(seconds=delay))
        note.blame(f"{new[0].pod['metadata']['name']}: {new[0].message}")
        status["handled"] = [*known, *(found.pod["metadata"]["uid"] for found in new)][-64:]
        restart = job.spec.restart
        if counted and len(status["restartTimes"]) > restart.max_restarts:
            budget = f"(restart.maxRestarts is {restart.max_restarts} in {restart.window_seconds} s)"
            message = new[0].message if budget in new[0].message else f"{new[0].message} {budget}"
            note.end("Failed", reasons.TOO_MANY_RESTARTS, message)
    if not failures:
        return None
    left = (moment_of(status["retryTime"]) - world.now).total_seconds() if status.get("retryTime") else 0.0
    return left if left > 0 else None
