"""What is left to do for a job that has ended: pure."""

from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.look import Look, Seen, soonest
from trainyard_operator.podstate import Deletion, deletion_of, is_leaving, outlives_trainer, stage_of
from trainyard_operator.times import seconds_left
from trainyard_operator.world import World

_LINGER = 180
"""Seconds that the first pod of a complete job has to end by itself: its log is copied to the storage at last."""


def has_ended(before: Object) -> bool:
    """Whether a status is that of a job that is complete or has failed.

    A job whose manifest was not accepted is Finished too, but its manifest can still be mended.
    """
    conditions = before.get("conditions", [])
    finished = [each for each in conditions if each["type"] == "Finished" and each["status"] == "True"]
    return any(each["reason"] != reasons.INVALID for each in finished)


def over(look: Look) -> Seen:
    """The pods go, and at the end of its time to live the job."""
    status, world = look.status, look.world
    left = seconds_left(status.get("completionTime"), look.job.spec.ttl_seconds_after_finished, world.now)
    again = soonest(left, _lingering(status, world))
    return Seen(status=look.note.done(), delete=_all_but_first(status, world), again=again, expired=left == 0.0)


def _lingering(status: Object, world: World) -> float | None:
    """Seconds that the first pod of a complete job still has to end by itself; None when it has none."""
    if status["state"] != "Complete":
        return None
    return seconds_left(status["completionTime"], _LINGER, world.now) or None


def _all_but_first(status: Object, world: World) -> tuple[Deletion, ...]:
    """Deletions of all pods but the first, whose log is still read: that of a complete job ends by itself."""
    lingers = _lingering(status, world) is not None
    first = world.first
    stays = first is not None and _may_stay(first, lingers)
    pods = [pod for pod in world.pods if not is_leaving(pod) and not (stays and pod is first)]
    return tuple(deletion_of(pod) for pod in pods)


def _may_stay(first: Object, lingers: bool) -> bool:
    """Whether the first pod holds nothing any more, or ends by itself; sidecars would hold it for ever."""
    if stage_of(first) == "Running":
        return lingers
    return stage_of(first) != "Pending" and not outlives_trainer(first)
