"""From what is there to what is said and done next: pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from trainyard.spec.model import TrainerJob
from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.podstate import (
    Deletion,
    Failure,
    deletion_of,
    end_of,
    failure_of,
    is_asked_to_leave,
    is_leaving,
    mounting_since,
    phase_of,
    why_waiting,
)
from trainyard_operator.render import DASHBOARD_PORT, INDEX_LABEL, SPEC_ANNOTATION, Owner, run_uri, spec_digest

_FIRST_DELAY, _MAX_DELAY = 5.0, 300.0
_KEPT_ATTEMPTS = 10
_LONGEST, _MOST_METRICS, _MOST_TIMES = 64, 64, 101
"""What the CRD takes (trainyard.spec.status): characters of a word, metrics, times of restarts. All are in the run."""
_AT_WORK = ("training", "evaluating", "exporting")
_LINGER = 180
"""Seconds that the first pod of a complete job has to end by itself: its log is copied to the storage at last."""
_MOUNT_AFTER = 20.0
"""Seconds that a pod on a node may take to begin: then something that it mounts may not be there."""
_FORCE_AFTER = 10.0
"""Seconds after which a pod on a lost node is taken for dead. The lineage of attempts makes that safe."""


@dataclass(frozen=True)
class Seen:
    """What a look at a job came to."""

    status: Object
    create: tuple[int, ...] = ()
    delete: tuple[Deletion, ...] = ()
    again: float | None = None
    """Seconds until the job must be looked at, if nothing happens before."""
    expired: bool = False
    """Whether the job itself is to be deleted: its time to live is over."""
    ensure: bool = False
    """Whether pods have waited for a while for what they mount: it may be gone, and is made again."""


@dataclass(frozen=True)
class World:
    """What is there, beside the job itself."""

    pods: list[Object]
    lost_nodes: Mapping[str, datetime]
    """Nodes that are not ready, and since when."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What rank 0 reported last."""
    refused: str | None = None
    """What the API server said when pods could not be made, for some seconds now."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def first(self) -> Object | None:
        """The pod of index 0, which drives."""
        return next((pod for pod in self.pods if pod["metadata"]["labels"][INDEX_LABEL] == "0"), None)

    def lost_since(self, pod: Object) -> datetime | None:
        """Since when the node of a pod is lost; None when it is not."""
        return self.lost_nodes.get(pod["spec"].get("nodeName", ""))


def observe(job: TrainerJob, owner: Owner, generation: int, before: Object, world: World) -> Seen:
    """The status of an accepted job, and what to do about its pods."""
    over = _ended(before)
    status = _kept(before) if over else _numbers(job, owner, before, world)
    status["observedGeneration"] = generation
    note = _Conditions(status, before, generation, world.now)
    note.set("Accepted", True, reasons.ACCEPTED, "the manifest is valid")
    if over:
        return _over(job, note, world)
    first = world.first
    told = world.progress.get("complete")  # a second or two before the kubelet says that the pod has succeeded
    if told or (first is not None and phase_of(first) == "Succeeded"):
        status["progress"] = "100%"
        words = told or (end_of(first).get("message") if first is not None else None)
        note.end("Complete", reasons.COMPLETE, str(words or run_uri(job, owner)))
        return _over(job, note, world)
    if job.spec.suspend:
        return _suspend(note, world)
    digest = spec_digest(job)
    if older := [pod for pod in world.pods if _of_another_spec(pod, digest)]:
        return _roll_out(note, world, older)
    if "Suspended" in note.known:  # as of batch/v1: a job that never was has no such condition
        note.set("Suspended", False, reasons.RUNNING, "")
    lost = _lost(world)
    failures = [found for pod in world.pods if (found := failure_of(pod)) and not is_leaving(pod)]
    if final := next((found for found in failures if found.final), None):
        note.end("Failed", final.reason, final.message)
        return _over(job, note, world)
    wait = _count(job, note, failures, world)
    _say(job, note, world, failures, wait)
    deadline = _deadline(job, note, world)
    if note.ended:
        return _over(job, note, world)
    gone = [] if wait else [deletion_of(found.pod) for found in failures]
    wanted, alive = job.spec.workers.pods, {int(pod["metadata"]["labels"][INDEX_LABEL]): pod for pod in world.pods}
    create = [index for index in range(wanted) if index not in alive]
    surplus = [deletion_of(pod) for index, pod in alive.items() if index >= wanted and not is_leaving(pod)]
    doubtful = any(world.lost_since(pod) for pod in world.pods)
    mounting = _mounting(world)
    late = mounting is not None and mounting >= _MOUNT_AFTER
    look = None if mounting is None else _MOUNT_AFTER if late else _MOUNT_AFTER - mounting
    again = [wait, deadline, 1.0 if doubtful and not lost else None, look]
    soonest = min((seconds for seconds in again if seconds is not None), default=None)
    return Seen(note.done(), tuple(create), (*gone, *lost, *surplus), again=soonest, ensure=late)


class _Conditions:
    """Conditions in the making: the time of a change is kept when nothing changed."""

    def __init__(self, status: Object, before: Object, generation: int, now: datetime) -> None:
        self.status, self.generation, self.now = status, generation, _time(now)
        self.known = {condition["type"]: condition for condition in before.get("conditions", [])}
        self.ended = False

    def set(self, kind: str, value: bool, reason: str, message: str) -> None:
        text = "True" if value else "False"
        old = self.known.get(kind, {})
        since = old.get("lastTransitionTime") if old.get("status") == text else self.now
        self.known[kind] = {
            "type": kind, "status": text, "reason": reason, "message": message[:2000],
            "lastTransitionTime": since, "observedGeneration": self.generation,
        }  # fmt: skip

    def end(self, kind: str, reason: str, message: str) -> None:
        """The job is over: Complete or Failed, and Finished either way."""
        self.set("Running", False, reason, message)
        self.set(kind, True, reason, message)
        self.set("Finished", True, reason, message)
        self.status["completionTime"] = self.now
        self.status.pop("eta", None)
        self.say(kind, reason, message)
        self.ended = True

    def halt(self, state: str, reason: str, message: str) -> None:
        """No steps are made, and why."""
        self.set("Running", False, reason, message)
        self.say(state, reason, message)

    def say(self, state: str, reason: str, message: str) -> None:
        self.status |= {"state": state, "reason": reason, "message": message[:2000]}

    def done(self) -> Object:
        self.status["conditions"] = [self.known[kind] for kind in sorted(self.known)]
        return self.status


def invalid(generation: int, before: Object, message: str, world: World) -> Object:
    """The status of a job whose manifest cannot be used. Pods that it has go on, and are not replaced."""
    status = dict(before)
    note = _Conditions(status, before, generation, world.now)
    note.set("Accepted", False, reasons.INVALID, message)
    if not any(phase_of(pod) == "Running" for pod in world.pods):
        note.set("Running", False, reasons.INVALID, message)
    note.say("Invalid", reasons.INVALID, message)
    return note.done() | {"observedGeneration": generation}


def _kept(before: Object) -> Object:
    """The status of before, without the conditions: those are made anew."""
    return {key: value for key, value in before.items() if key != "conditions"}


def _numbers(job: TrainerJob, owner: Owner, before: Object, world: World) -> Object:
    """The status of before, with what was reported since. Numbers are texts, as everywhere in Kubernetes."""
    status = _kept(before)
    status.setdefault("startTime", _time(world.now))
    status.setdefault("restarts", 0)
    status["resultUri"] = f"{run_uri(job, owner)}/final"
    status.pop("dashboard", None)
    if host := _dashboard_host(job, owner, world):
        status["dashboard"] = f"http://{host}:{DASHBOARD_PORT}"
    told = world.progress
    _attempts(job, status, before, world)
    if told.get("step_seconds") and "startTime" in before:
        elapsed = (world.now - _parse(before["startTime"])).total_seconds()
        if elapsed > 0:
            status["goodput"] = f"{min(100.0, 100 * told['step'] * told['step_seconds'] / elapsed):.0f}%"
    if "step" in told and told.get("total"):
        status["step"] = f"{told['step']}/{told['total']}"
        status["progress"] = f"{told['step'] * 100 // told['total']}%"
    if "loss" in told:
        status["loss"] = f"{told['loss']:.4g}"
    for name in ("attempt", "checkpoint", "phase"):
        if told.get(name) is not None:
            status[name] = told[name][:_LONGEST] if isinstance(told[name], str) else told[name]
    if told:
        status.pop("eta", None)
    if told.get("eta"):
        status["eta"] = told["eta"]
    measured = {
        name: value
        for name, value in told.items()
        if name.startswith("eval_") and len(name) <= _LONGEST and isinstance(value, int | float)
    }
    if measured:
        metrics = [{"name": name, "value": f"{value:.6g}"} for name, value in sorted(measured.items())]
        status["metrics"] = metrics[:_MOST_METRICS]
    return status


def _dashboard_host(job: TrainerJob, owner: Owner, world: World) -> str | None:
    """The first pod's name, or the address of a single pod, which has no Service that would name it."""
    if job.spec.workers.pods > 1:
        return owner.head
    first = world.first
    if first is None or phase_of(first) != "Running" or is_leaving(first):
        return None
    address: str | None = first["status"].get("podIP")
    return address


def _attempts(job: TrainerJob, status: Object, before: Object, world: World) -> None:
    """Note an attempt that is new, with why the one before ended and how many steps have to be done again.

    A fault that cost no pod is counted here; one that did has been counted with its pod. What asks pods to go, and the
    loss of a node, is no fault of the job.
    """
    told, known = world.progress, before.get("attempts", [])
    number, since = told.get("attempt"), known[-1]["startTime"] if known else ""
    excused = status.get("excusedTime", "") > since
    taken = (pod for pod in world.pods if phase_of(pod) != "Failed")
    if not excused and any(is_asked_to_leave(pod) or world.lost_since(pod) for pod in taken):
        status["excusedTime"] = _time(world.now)
    if not isinstance(number, int) or (known and known[-1]["number"] >= number):
        return
    attempt: Object = {"number": number, "startTime": _time(world.now)}
    resumed = told.get("resumed")
    if resumed:
        attempt["resumedFrom"] = resumed[:_LONGEST]
    if number > 1:
        attempt["cause"] = str(told.get("cause") or "the pod that drives was replaced")[:2000]
        done = int(str(before.get("step", "0")).partition("/")[0])
        attempt["lostSteps"] = max(0, done - (int(str(resumed).partition("-")[0]) if resumed else 0))
    status["attempts"] = [*known, attempt][-_KEPT_ATTEMPTS:]
    fault = bool(told.get("cause")) and not told.get("free")
    # Later than the attempt that is over: at its own start the fault before it was counted.
    counted = known and any(moment > since for moment in status.get("restartTimes", []))
    if fault and not counted and not excused:
        _charge(job, status, world.now)


def _charge(job: TrainerJob, status: Object, now: datetime) -> None:
    """Count a fault, now."""
    since = now - timedelta(seconds=job.spec.restart.window_seconds)
    recent = [moment for moment in status.get("restartTimes", []) if _parse(moment) > since]
    status["restartTimes"] = [*recent, _time(now)][-_MOST_TIMES:]
    status["restarts"] = status.get("restarts", 0) + 1


def _suspend(note: _Conditions, world: World) -> Seen:
    if world.pods:
        note.halt("Suspending", reasons.SUSPENDING, "saving a checkpoint before the pods go")
    else:
        note.set("Running", False, reasons.SUSPENDED, "spec.suspend is true")
        note.set("Suspended", True, reasons.SUSPENDED, "spec.suspend is true")
        # As of batch/v1: deadlines count from the resume.
        for name in ("startTime", "pendingSince"):
            note.status.pop(name, None)
        note.say("Suspended", reasons.SUSPENDED, "spec.suspend is true")
    return Seen(note.done(), delete=_let_go(world, world.pods))


def _let_go(world: World, pods: list[Object]) -> tuple[Deletion, ...]:
    """Let pods save and go; those on lost nodes are forgotten."""
    return (*_lost(world), *(deletion_of(pod) for pod in pods if not is_leaving(pod)))


def _of_another_spec(pod: Object, digest: str) -> bool:
    """Whether a live pod was made for what the manifest said before."""
    made_for = pod["metadata"].get("annotations", {}).get(SPEC_ANNOTATION)
    return made_for is not None and phase_of(pod) in ("Pending", "Running") and made_for != digest


def _roll_out(note: _Conditions, world: World, older: list[Object]) -> Seen:
    """Let the pods of an earlier spec save and go, all of them, before new ones come."""
    message = "the manifest has changed: saving a checkpoint, then the pods start anew"
    note.halt("Restarting", reasons.SPEC_CHANGED, message)
    return Seen(note.done(), delete=_let_go(world, older), again=1.0 if world.lost_nodes else None)


def _count(job: TrainerJob, note: _Conditions, failures: list[Failure], world: World) -> float | None:
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
        status["retryTime"] = _time(world.now + timedelta(seconds=delay))
        status["handled"] = [*known, *(found.pod["metadata"]["uid"] for found in new)][-64:]
        restart = job.spec.restart
        if counted and len(status["restartTimes"]) > restart.max_restarts:
            message = f"{new[0].message} (restart.maxRestarts is {restart.max_restarts} in {restart.window_seconds} s)"
            note.end("Failed", reasons.TOO_MANY_RESTARTS, message)
    if not failures:
        return None
    left = (_parse(status["retryTime"]) - world.now).total_seconds() if status.get("retryTime") else 0.0
    return left if left > 0 else None


def _deadline(job: TrainerJob, note: _Conditions, world: World) -> float | None:
    """End a job that is out of time; else seconds until it is, or None without a deadline."""
    if note.ended:
        return None
    status, spec = note.status, job.spec
    active = _seconds_left(status.get("startTime"), spec.active_deadline_seconds, world.now)
    if active == 0.0:
        message = f"not complete {spec.active_deadline_seconds} s after its start (activeDeadlineSeconds)"
        note.end("Failed", reasons.DEADLINE, message)
        return None
    running = sum(phase_of(pod) == "Running" for pod in world.pods) >= spec.workers.count
    if running:
        status.pop("pendingSince", None)
        return active
    pending = _seconds_left(
        status.setdefault("pendingSince", _time(world.now)), spec.pending_deadline_seconds, world.now
    )
    if pending == 0.0:
        message = (
            f"waited {spec.pending_deadline_seconds} s for its workers (pendingDeadlineSeconds): {status['message']}"
        )
        note.end("Failed", reasons.PENDING, message)
        return None
    return min((left for left in (active, pending) if left is not None), default=None)


def _seconds_left(since: str | None, limit: int | None, now: datetime) -> float | None:
    """Seconds until a limit after a moment, 0 when it has passed; None without a limit."""
    if since is None or limit is None:
        return None
    return max(0.0, limit - (now - _parse(since)).total_seconds())


def _say(job: TrainerJob, note: _Conditions, world: World, failures: list[Failure], wait: float | None) -> None:
    """What the job is doing, or why it waits, in words."""
    if note.ended:
        return
    if failures:
        reason = reasons.BACKING_OFF if wait else reasons.RESTARTING
        message = f"{failures[0].pod['metadata']['name']}: {failures[0].message}"
        message += f"; its pod is replaced in {wait:.0f} s" if wait else ""
        note.halt("Restarting", reason, message)
        return
    if lost := _lost_words(world):
        note.halt("Restarting", reasons.NODE_LOST, lost)
        return
    count = job.spec.workers.count
    running = min(count, sum(phase_of(pod) == "Running" and not is_leaving(pod) for pod in world.pods))
    workers = f"{running} of {count} workers run"
    # An operator that was just started has no report yet: what ran before is not said to start.
    phase = world.progress.get("phase")
    ran = note.status.get("state") == "Running"
    steps = (phase in _AT_WORK and (ran or _is_news(world))) or (ran and not world.progress)
    if running == count and phase == "restarting":
        cause = str(world.progress.get("cause") or "the training processes are started again")
        note.halt("Restarting", reasons.RESTARTING, cause)
        return
    waiting = next((found for pod in world.pods if (found := why_waiting(pod))), None)
    if waiting is None and world.refused and running < count:
        waiting = reasons.REFUSED, world.refused
    elif waiting is None and (_mounting(world) or 0.0) >= _MOUNT_AFTER:
        waiting = reasons.CREATING, _creating_words(world)
    if running == count and steps:
        note.set("Running", True, reasons.RUNNING, workers)
        note.say("Running", reasons.RUNNING, f"a spare waits: {waiting[1]}" if waiting else "")
    elif waiting:
        note.halt("Pending", *waiting)
    else:
        note.halt("Starting", reasons.STARTING, workers)


def _mounting(world: World) -> float | None:
    """Seconds that a pod has waited on its node for what it mounts; None without one."""
    since = [moment for pod in world.pods if (moment := mounting_since(pod))]
    return (world.now - min(map(_parse, since))).total_seconds() if since else None


def _creating_words(world: World) -> str:
    name = next(pod["metadata"]["name"] for pod in world.pods if mounting_since(pod))
    return (
        f"{name} waits for its image, or for a volume, Secret or ConfigMap: kubectl describe pod {name} says for which"
    )


def _lost_words(world: World) -> str | None:
    """Which pod is on a lost node, when nothing was reported since; with a spare the others go on."""
    for pod in world.pods:
        since = world.lost_since(pod)
        if since and world.progress.get("reported", 0.0) <= since.timestamp():
            name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
            return f"{name}: node {node} is not ready; the pod is replaced when it has been so for {_FORCE_AFTER:.0f} s"
    return None


def _is_news(world: World) -> bool:
    """Whether rank 0 has reported since the newest pod began: what the processes before it told is over."""
    begun = [_parse(pod["status"]["startTime"]) for pod in world.pods if pod.get("status", {}).get("startTime")]
    # Kubernetes cuts fractions of a second off.
    return not begun or world.progress.get("reported", 0.0) > max(begun).timestamp() + 1.0


def _lost(world: World) -> list[Deletion]:
    """Pods on nodes that have been lost for long enough: forgotten by force, so that their names are free."""
    return [
        deletion_of(pod, 0)
        for pod in world.pods
        if (since := world.lost_since(pod)) and (world.now - since).total_seconds() >= _FORCE_AFTER
    ]


def _over(job: TrainerJob, note: _Conditions, world: World) -> Seen:
    """What is left to do for a job that has ended."""
    status = note.status
    left = _seconds_left(status.get("completionTime"), job.spec.ttl_seconds_after_finished, world.now)
    soonest = min((wait for wait in (left, _lingering(status, world)) if wait is not None), default=None)
    return Seen(note.done(), delete=_leave_first(status, world), again=soonest, expired=left == 0.0)


def _lingering(status: Object, world: World) -> float | None:
    """Seconds that the first pod of a complete job still has to end by itself; None when it has none."""
    if status["state"] != "Complete":
        return None
    return _seconds_left(status["completionTime"], _LINGER, world.now) or None


def _leave_first(status: Object, world: World) -> tuple[Deletion, ...]:
    """When a job has ended all pods go but the first, whose log is still read: a complete job's ends by itself."""
    kept = ("Succeeded", "Failed") if _lingering(status, world) is None else ("Succeeded", "Failed", "Running")
    return tuple(
        deletion_of(pod)
        for pod in world.pods
        if not (pod["metadata"]["labels"][INDEX_LABEL] == "0" and phase_of(pod) in kept) and not is_leaving(pod)
    )


def _ended(before: Object) -> bool:
    return any(c["type"] == "Finished" and c["status"] == "True" for c in before.get("conditions", []))


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _parse(text: str) -> datetime:
    return datetime.fromisoformat(text)
