"""From what is there to what is said and done next: pure."""

from dataclasses import dataclass
from datetime import datetime

from trainyard.spec.model import TrainerJob
from trainyard.spec.status import METRICS, WORD_LENGTH
from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.conditions import Conditions
from trainyard_operator.faults import count_failures, note_attempt
from trainyard_operator.podstate import (
    Deletion,
    Failure,
    deletion_of,
    end_of,
    failure_of,
    is_asked_to_leave,
    is_leaving,
    phase_of,
    silent_since,
    why_silent,
    why_waiting,
)
from trainyard_operator.render import DASHBOARD_PORT, INDEX_LABEL, SPEC_ANNOTATION, Owner, run_uri, spec_digest
from trainyard_operator.times import moment_of, seconds_left, text_of
from trainyard_operator.world import World

_AT_WORK = ("training", "evaluating", "exporting")
_LINGER = 180
"""Seconds that the first pod of a complete job has to end by itself: its log is copied to the storage at last."""
_SILENT_AFTER = 20.0
"""Seconds that a pod may take to begin: then what it waits for may not be there."""
_TOLD_LATE = 3.0
"""Seconds by which a report may come after what it tells: their interval, and Kubernetes tells whole seconds."""
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


def observe(job: TrainerJob, owner: Owner, generation: int, before: Object, world: World) -> Seen:
    """The status of an accepted job, and what to do about its pods."""
    over = _ended(before)
    status = _kept(before) if over else _numbers(job, owner, before, world)
    status["observedGeneration"] = generation
    note = Conditions(status, before, generation, world.now)
    note.set("Accepted", True, reasons.ACCEPTED, "the manifest is valid")
    if over:
        return _over(job, note, world)
    first = world.first
    told = world.progress.get("complete")  # a second or two before the kubelet says that the pod has succeeded
    if told or (first is not None and phase_of(first) == "Succeeded"):
        status["progressPercentage"] = 100
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
    wait = count_failures(job, note, failures, world)
    _say(job, note, world, failures, wait)
    deadline = _deadline(job, note, world)
    if note.ended:
        return _over(job, note, world)
    gone = [] if wait else [deletion_of(found.pod) for found in failures]
    wanted, alive = job.spec.workers.pods, {int(pod["metadata"]["labels"][INDEX_LABEL]): pod for pod in world.pods}
    create = [index for index in range(wanted) if index not in alive]
    surplus = [deletion_of(pod) for index, pod in alive.items() if index >= wanted and not is_leaving(pod)]
    doubtful = any(world.lost_since(pod) for pod in world.pods)
    late = _silent_for_long(world)
    look = None if world.silent is None else _SILENT_AFTER if late else _SILENT_AFTER - world.silent
    again = [wait, deadline, 1.0 if doubtful and not lost else None, look]
    soonest = min((seconds for seconds in again if seconds is not None), default=None)
    return Seen(note.done(), tuple(create), (*gone, *lost, *surplus), again=soonest, ensure=late)


def invalid(generation: int, before: Object, message: str, world: World) -> Object:
    """The status of a job whose manifest cannot be used. Pods that it has go on, and are not replaced."""
    status = dict(before)
    note = Conditions(status, before, generation, world.now)
    note.set("Accepted", False, reasons.INVALID, message)
    if not any(phase_of(pod) == "Running" for pod in world.pods):
        note.set("Running", False, reasons.INVALID, message)
    note.say("Invalid", reasons.INVALID, message)
    return note.done() | {"observedGeneration": generation}


def _kept(before: Object) -> Object:
    """The status of before, without the conditions: those are made anew."""
    return {key: value for key, value in before.items() if key != "conditions"}


def _numbers(job: TrainerJob, owner: Owner, before: Object, world: World) -> Object:
    """The status of before, with what was reported since."""
    status = _kept(before)
    status.setdefault("startTime", text_of(world.now))
    status.setdefault("restarts", 0)
    status["resultUri"] = f"{run_uri(job, owner)}/final"
    status.pop("dashboard", None)
    if host := _dashboard_host(job, owner, world):
        status["dashboard"] = f"http://{host}:{DASHBOARD_PORT}"
    told = world.progress
    note_attempt(job, status, before, world)
    if told.get("step_seconds") and "step" in told and "startTime" in before:
        elapsed = _active_seconds(before, world.now)
        if elapsed > 0:
            status["goodputPercentage"] = round(min(100.0, 100 * told["step"] * told["step_seconds"] / elapsed))
    if "step" in told and told.get("total"):
        status |= {"step": told["step"], "steps": told["total"]}
        status["progressPercentage"] = told["step"] * 100 // told["total"]
    if "loss" in told:
        status["loss"] = f"{told['loss']:.4g}"
    for name in ("attempt", "checkpoint", "phase"):
        if told.get(name) is not None:
            status[name] = told[name][:WORD_LENGTH] if isinstance(told[name], str) else told[name]
    if told:
        status.pop("estimatedRemainingSeconds", None)
    if told.get("eta") is not None:
        status["estimatedRemainingSeconds"] = told["eta"]
    measured = {
        name: value
        for name, value in told.items()
        if name.startswith("eval_") and len(name) <= WORD_LENGTH and isinstance(value, int | float)
    }
    if measured:
        metrics = [{"name": name, "value": f"{value:.6g}"} for name, value in sorted(measured.items())]
        status["metrics"] = metrics[:METRICS]
    return status


def _active_seconds(status: Object, now: datetime) -> float:
    """Seconds in which the job could make steps: not those in which it was suspended."""
    since = (now - moment_of(status["startTime"])).total_seconds() if "startTime" in status else 0.0
    return float(status.get("activeSeconds", 0)) + since


def _dashboard_host(job: TrainerJob, owner: Owner, world: World) -> str | None:
    """The first pod's name, or the address of a single pod, which has no Service that would name it."""
    if job.spec.workers.pods > 1:
        return owner.head
    first = world.first
    if first is None or phase_of(first) != "Running" or is_leaving(first):
        return None
    address: str | None = first["status"].get("podIP")
    return address


def _suspend(note: Conditions, world: World) -> Seen:
    if world.pods:
        note.halt("Suspending", reasons.SUSPENDING, "saving a checkpoint before the pods go")
    else:
        note.set("Running", False, reasons.SUSPENDED, "spec.suspend is true")
        note.set("Suspended", True, reasons.SUSPENDED, "spec.suspend is true")
        if "startTime" in note.status:
            note.status["activeSeconds"] = int(_active_seconds(note.status, world.now))
        # As of batch/v1: deadlines count from the resume.
        for name in ("startTime", "pendingSince"):
            note.status.pop(name, None)
        for name in ("phase", "dashboard"):  # of pods that are gone
            note.status.pop(name, None)
        note.blame("spec.suspend was true")
        note.say("Suspended", reasons.SUSPENDED, "spec.suspend is true: trainyard resume lets it go on")
    return Seen(note.done(), delete=_let_go(world, world.pods))


def _let_go(world: World, pods: list[Object]) -> tuple[Deletion, ...]:
    """Let pods save and go; those on lost nodes are forgotten."""
    return (*_lost(world), *(deletion_of(pod) for pod in pods if not is_leaving(pod)))


def _of_another_spec(pod: Object, digest: str) -> bool:
    """Whether a live pod was made for what the manifest said before."""
    made_for = pod["metadata"].get("annotations", {}).get(SPEC_ANNOTATION)
    return made_for is not None and phase_of(pod) in ("Pending", "Running") and made_for != digest


def _roll_out(note: Conditions, world: World, older: list[Object]) -> Seen:
    """Let the pods of an earlier spec save and go, all of them, before new ones come."""
    message = "the manifest has changed: saving a checkpoint, then the pods start anew"
    note.blame("the manifest has changed")
    note.halt("Restarting", reasons.SPEC_CHANGED, message)
    return Seen(note.done(), delete=_let_go(world, older), again=1.0 if world.lost_nodes else None)


def _deadline(job: TrainerJob, note: Conditions, world: World) -> float | None:
    """End a job that is out of time; else seconds until it is, or None without a deadline."""
    if note.ended:
        return None
    status, spec = note.status, job.spec
    active = seconds_left(status.get("startTime"), spec.active_deadline_seconds, world.now)
    if active == 0.0:
        message = f"not complete {spec.active_deadline_seconds} s after its start (activeDeadlineSeconds)"
        note.end("Failed", reasons.DEADLINE, message)
        return None
    running = sum(phase_of(pod) == "Running" for pod in world.pods) >= spec.workers.count
    if running:
        status.pop("pendingSince", None)
        return active
    pending = seconds_left(
        status.setdefault("pendingSince", text_of(world.now)), spec.pending_deadline_seconds, world.now
    )
    if pending == 0.0:
        message = (
            f"waited {spec.pending_deadline_seconds} s for its workers (pendingDeadlineSeconds): {status['message']}"
        )
        note.end("Failed", reasons.PENDING, message)
        return None
    return min((left for left in (active, pending) if left is not None), default=None)


def _say(job: TrainerJob, note: Conditions, world: World, failures: list[Failure], wait: float | None) -> None:
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
        note.blame(lost)
        message = f"{lost}; its pods are replaced when it has been so for {_FORCE_AFTER:.0f} s"
        note.halt("Restarting", reasons.NODE_LOST, message)
        return
    count = job.spec.workers.count
    running = min(count, sum(phase_of(pod) == "Running" and not is_leaving(pod) for pod in world.pods))
    workers, fault = f"{running} of {count} workers run", note.status.get("fault")
    # An operator that was just started has no report yet: what ran before is not said to start.
    phase = world.progress.get("phase")
    ran = note.status.get("state") == "Running"
    steps = (phase in _AT_WORK and (ran or _is_news(world))) or (ran and not world.progress)
    if running == count and phase == "restarting":
        cause = str(fault or world.progress.get("cause") or "the training processes are started again")
        note.halt("Restarting", reasons.RESTARTING, cause)
        return
    waiting = next((found for pod in world.pods if (found := why_waiting(pod))), None)
    if waiting is None and world.refused and running < count:
        waiting = reasons.REFUSED, world.refused
    elif waiting is None and _silent_for_long(world):
        waiting = reasons.CREATING, next(why_silent(pod) for pod in world.pods if silent_since(pod))
    if running == count and steps:
        note.status.pop("fault", None)
        note.set("Running", True, reasons.RUNNING, workers)
        note.say("Running", reasons.RUNNING, f"a spare waits: {waiting[1]}" if waiting else "")
    elif waiting:
        note.halt("Pending", *waiting)
    elif gone := _gone(job, note, world):
        note.blame(gone[1])
        note.halt("Restarting", *gone)
    else:
        note.halt("Starting", reasons.STARTING, f"{workers}; before: {fault}" if fault else workers)


def _silent_for_long(world: World) -> bool:
    """Whether nobody has said for a while why a pod does not begin."""
    return world.silent is not None and world.silent >= _SILENT_AFTER


def _gone(job: TrainerJob, note: Conditions, world: World) -> tuple[str, str] | None:
    """Why a job that ran has too few workers, as a reason and a message: a pod was asked to go, or is gone."""
    ran = note.status.get("state") == "Running"
    for pod in world.pods:
        if is_asked_to_leave(pod) and (ran or note.status.get("reason") == reasons.EVICTED):
            name = pod["metadata"]["name"]
            return reasons.EVICTED, f"{name} was asked to go: it saves, and a new one takes its place"
    there = {int(pod["metadata"]["labels"][INDEX_LABEL]) for pod in world.pods if not is_leaving(pod)}
    missing = [index for index in range(job.spec.workers.count) if index not in there]
    if not ran or not missing:
        return None
    return reasons.POD_LOST, f"{job.name}-{missing[0]} was deleted; a new one takes its place"


def _lost_words(world: World) -> str | None:
    """Which pod is on a lost node, when nothing was reported since; with a spare the others go on."""
    for pod in world.pods:
        since = world.lost_since(pod)
        if since and world.progress.get("reported", 0.0) <= since.timestamp():
            name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
            return f"{name}: node {node} is not ready"
    return None


def _is_news(world: World) -> bool:
    """Whether there was a step, or an attempt, since the newest pod began: what was told before is over."""
    begun = [moment_of(pod["status"]["startTime"]) for pod in world.pods if pod.get("status", {}).get("startTime")]
    # The last step of what died may be told when its pod is replaced already.
    return not begun or world.progress.get("moved", 0.0) > max(begun).timestamp() + _TOLD_LATE


def _lost(world: World) -> list[Deletion]:
    """Pods on nodes that have been lost for long enough: forgotten by force, so that their names are free."""
    return [
        deletion_of(pod, 0)
        for pod in world.pods
        if (since := world.lost_since(pod)) and (world.now - since).total_seconds() >= _FORCE_AFTER
    ]


def _over(job: TrainerJob, note: Conditions, world: World) -> Seen:
    """What is left to do for a job that has ended."""
    status = note.status
    left = seconds_left(status.get("completionTime"), job.spec.ttl_seconds_after_finished, world.now)
    soonest = min((wait for wait in (left, _lingering(status, world)) if wait is not None), default=None)
    return Seen(note.done(), delete=_leave_first(status, world), again=soonest, expired=left == 0.0)


def _lingering(status: Object, world: World) -> float | None:
    """Seconds that the first pod of a complete job still has to end by itself; None when it has none."""
    if status["state"] != "Complete":
        return None
    return seconds_left(status["completionTime"], _LINGER, world.now) or None


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
