"""From what is there to what is said and done next: pure."""

from collections.abc import Callable

from trainyard.spec.model import TrainerJob
from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.conditions import Conditions
from trainyard_operator.deadlines import deadline
from trainyard_operator.endings import has_ended, over
from trainyard_operator.failures import end_of
from trainyard_operator.faults import count_failures
from trainyard_operator.identity import SPEC_ANNOTATION, Owner
from trainyard_operator.leaving import forgotten, held_words, let_go, until_held
from trainyard_operator.look import Look, Seen, soonest
from trainyard_operator.numbers import active_seconds, kept, numbers
from trainyard_operator.podstate import deletion_of, is_leaving, stage_of
from trainyard_operator.render import run_uri, spec_digest
from trainyard_operator.words import SILENT_AFTER, say, silent_for_long
from trainyard_operator.world import World

_LOST_AGAIN = 1.0
"""Seconds until a job with a pod on a lost node is looked at again."""


def observe(job: TrainerJob, owner: Owner, generation: int, before: Object, world: World) -> Seen:
    """The status of an accepted job, and what to do about its pods.

    `before`: the status as it was; `generation`: that of the manifest.
    """
    status = kept(before) if has_ended(before) else numbers(job, owner, before, world)
    status["observedGeneration"] = generation
    note = Conditions(status, before, generation, world.now)
    note.set("Accepted", True, reasons.ACCEPTED, "the manifest is valid")
    status["acceptedGeneration"] = generation
    if "Finished" in note.known and not has_ended(before):  # of a manifest that was not accepted
        note.set("Finished", False, reasons.ACCEPTED, "")
    look = Look(job=job, owner=owner, note=note, world=world)
    outcome = next(outcome for applies, outcome in _OUTCOMES if applies(look, before))
    return outcome(look)


def invalid(generation: int, before: Object, message: str, world: World) -> Object:
    """The status of a job whose manifest cannot be used. Its pods run on, and are not replaced.

    Without pods that run it is Finished, so that whoever waits for its end hears of it, until the manifest is mended.
    """
    status = {**before, "observedGeneration": generation}
    note = Conditions(status, before, generation, world.now)
    note.set("Accepted", False, reasons.INVALID, message)
    if has_ended(before):
        return note.done()
    if not world.running:
        note.set("Running", False, reasons.INVALID, message)
        note.set("Finished", True, reasons.INVALID, message)
    note.say("Invalid", reasons.INVALID, message)
    return note.done()


def _is_complete(look: Look) -> bool:
    """Whether the driver says so, a second or two before the kubelet, or its pod has succeeded."""
    first = look.world.first
    succeeded = first is not None and stage_of(first) == "Succeeded"
    return succeeded or bool(look.world.progress.get("complete"))


def _complete(look: Look) -> Seen:
    first = look.world.first
    words = look.world.progress.get("complete")
    if not words and first is not None:
        words = end_of(first).get("message")
    look.status["progressPercentage"] = 100
    look.note.end("Complete", reasons.COMPLETE, str(words or run_uri(look.job, look.owner)))
    return over(look)


def _suspend(look: Look) -> Seen:
    """Let the pods save and go; when they are gone, say so."""
    note, world = look.note, look.world
    if world.pods:
        saving = "saving a checkpoint before the pods go"
        note.halt("Suspending", reasons.SUSPENDING, held_words(world) or saving)
        return Seen(status=note.done(), delete=let_go(world, world.pods), again=until_held(world))
    note.set("Running", False, reasons.SUSPENDED, "spec.suspend is true")
    note.set("Suspended", True, reasons.SUSPENDED, "spec.suspend is true")
    if "startTime" in note.status:
        note.status["activeSeconds"] = int(active_seconds(note.status, world.now))
    # As of batch/v1: deadlines count from the resume. The others are of pods that are gone.
    for name in ("startTime", "pendingSince", "phase", "dashboard"):
        note.status.pop(name, None)
    note.blame("spec.suspend was true")
    note.say("Suspended", reasons.SUSPENDED, "spec.suspend is true: trainyard resume lets it go on")
    return Seen(status=note.done())


def _older(look: Look) -> list[Object]:
    """Live pods that were made for what the manifest said before."""
    digest = spec_digest(look.job)
    return [pod for pod in look.world.pods if _is_of_another_spec(pod, digest)]


def _is_of_another_spec(pod: Object, digest: str) -> bool:
    made_for = (pod["metadata"].get("annotations") or {}).get(SPEC_ANNOTATION)
    return made_for is not None and stage_of(pod) in ("Pending", "Running") and made_for != digest


def _roll_out(look: Look) -> Seen:
    """Let the pods of an earlier spec save and go, all of them, before new ones come."""
    saving = "the manifest has changed: saving a checkpoint, then the pods start again"
    look.note.blame("the manifest has changed")
    look.note.halt("Restarting", reasons.SPEC_CHANGED, held_words(look.world) or saving)
    doubtful = _LOST_AGAIN if look.world.lost_nodes else None
    again = soonest(doubtful, until_held(look.world))
    return Seen(status=look.note.done(), delete=let_go(look.world, _older(look)), again=again)


def _is_final(look: Look) -> bool:
    return any(failure.final for failure in look.failures)


def _fail(look: Look) -> Seen:
    """The job's own mistake: another try would end in the same way."""
    final = next(failure for failure in look.failures if failure.final)
    look.note.end("Failed", final.reason, final.message)
    return over(look)


def _run(look: Look) -> Seen:
    """Count what has failed, say what the job does, and bring its pods to where they should be."""
    note, world = look.note, look.world
    if "Suspended" in note.known:  # as of batch/v1: a job that never was has no such condition
        note.set("Suspended", False, reasons.RUNNING, "")
    wait = count_failures(look)
    say(look, wait)
    limit = deadline(look)
    if note.ended:
        return over(look)
    wanted = look.job.spec.workers.pods
    create = tuple(index for index in range(wanted) if index not in world.by_index)
    failed = [] if wait else [failure.pod for failure in look.failures]
    surplus = [pod for index, pod in world.by_index.items() if index >= wanted and not is_leaving(pod)]
    asked = [deletion_of(pod) for pod in (*failed, *surplus)]
    lost = forgotten(world)
    doubtful = any(world.lost_since(pod) for pod in world.pods) and not lost
    again = soonest(wait, limit, _LOST_AGAIN if doubtful else None, _until_silent(look), until_held(world))
    return Seen(status=note.done(), create=create, delete=(*asked, *lost), again=again, ensure=silent_for_long(look))


def _until_silent(look: Look) -> float | None:
    """Seconds until a pod of which nobody says anything is looked at again."""
    if look.world.silent is None:
        return None
    return SILENT_AFTER if silent_for_long(look) else SILENT_AFTER - look.world.silent


_OUTCOMES: tuple[tuple[Callable[[Look, Object], object], Callable[[Look], Seen]], ...] = (
    (lambda look, before: has_ended(before), over),
    (lambda look, before: _is_complete(look), _complete),
    (lambda look, before: look.job.spec.suspend, _suspend),
    (lambda look, before: _older(look), _roll_out),
    (lambda look, before: _is_final(look), _fail),
    (lambda look, before: True, _run),
)
"""When a job comes to which outcome; the first that applies wins."""
