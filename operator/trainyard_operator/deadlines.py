"""The limits of time that a job sets itself: pure."""

from trainyard_operator import reasons
from trainyard_operator.look import Look, soonest
from trainyard_operator.times import seconds_left, text_of


def deadline(look: Look) -> float | None:
    """End a job that is out of time; else seconds until it is, or None without a deadline."""
    if look.note.ended:
        return None
    status, spec, now = look.status, look.job.spec, look.world.now
    active = seconds_left(status.get("startTime"), spec.active_deadline_seconds, now)
    if active == 0.0:
        message = f"not complete {spec.active_deadline_seconds} s after its start (activeDeadlineSeconds)"
        look.note.end("Failed", reasons.DEADLINE, message)
        return None
    if look.world.running >= spec.workers.count:
        status.pop("pendingSince", None)
        return active
    since = status.setdefault("pendingSince", text_of(now))
    pending = seconds_left(since, spec.pending_deadline_seconds, now)
    if pending == 0.0:
        limit = f"waited {spec.pending_deadline_seconds} s for its workers (pendingDeadlineSeconds)"
        look.note.end("Failed", reasons.PENDING, f"{limit}: {status['message']}")
        return None
    return soonest(active, pending)
