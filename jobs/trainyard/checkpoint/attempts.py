"""Attempts and their lineage.

Every start of the group of training processes is an attempt; a few are given up before it. It is claimed
with a conditional create, so two can never have the same number, and it records the checkpoint that it
resumed from. What an older attempt commits after it has begun (a frozen process that wakes up, a partitioned
node) is outside the lineage.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store

Outcome = Literal["Complete", "Stopped", "UserError", "Infrastructure"]
"""Stopped: asked to, with its last step committed. UserError: trying again does not mend it. Infrastructure: it may."""


@dataclass(frozen=True)
class Attempt:
    """One start of the training processes."""

    number: int
    resumed_from: CheckpointId | None
    world_size: int
    started_at: str
    anew: bool = False
    """Started anew on purpose (resume: Never), beside what was there."""
    job: str = ""
    """The uid of the TrainerJob on a cluster; empty for `trainyard run`."""
    begun: bool = True
    """False from the claim until the checkpoint to go on from is sure. Until then the end of the attempt before counts,
    as it does where its file cannot be read."""


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended."""

    outcome: Outcome
    message: str
    step: int
    ended_at: str


def now() -> str:
    """The time, in UTC, as RFC 3339 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def list_attempts(store: Store) -> list[Attempt]:
    """The attempts of a run, oldest first."""
    numbered = [(layout.attempt_number(entry.path), entry.path) for entry in store.list(layout.ATTEMPTS)]
    return [_read(store, number, path) for number, path in sorted((n, p) for n, p in numbered if n is not None)]


def newest_number(store: Store) -> int:
    """The number of the newest attempt, 0 when there is none: list_attempts without reading what each holds."""
    return max((layout.attempt_number(entry.path) or 0 for entry in store.list(layout.ATTEMPTS)), default=0)


def claim(
    store: Store,
    resumed_from: CheckpointId | None,
    world_size: int,
    after: int,
    anew: bool = False,
    job: str = "",
    begun: bool = True,
) -> Attempt | None:
    """Claim attempt number `after + 1`; None when another process was faster, and the caller must look again.

    Who is not sure yet of the checkpoint to go on from claims it as not begun, and calls begin() later.
    """
    attempt = Attempt(after + 1, resumed_from, world_size, now(), anew, job, begun)
    return attempt if store.create(layout.attempt_path(attempt.number), _written(attempt)) else None


def begin(store: Store, attempt: Attempt) -> None:
    """From here on what earlier attempts have committed counts up to the checkpoint that this one goes on from."""
    store.put(layout.attempt_path(attempt.number), _written(replace(attempt, begun=True)))


def end(store: Store, number: int, outcome: Outcome, message: str, step: int) -> None:
    """Tell how an attempt ended."""
    document = asdict(AttemptEnd(outcome, message, step, now()))
    store.put(layout.attempt_end_path(number), json.dumps(document, indent=1).encode())


def read_end(store: Store, number: int) -> AttemptEnd:
    """How an attempt ended. Raises NotFoundError when it has not, or died before it could tell."""
    return AttemptEnd(**json.loads(store.get(layout.attempt_end_path(number))))


def lineage(attempts: list[Attempt]) -> dict[int, int | None]:
    """The attempts whose checkpoints count, each with the last step that counts (None: every step).

    The newest attempt counts whole; its parent up to the step that it resumed from; and so on back.
    """
    by_number = {attempt.number: attempt for attempt in attempts}
    valid: dict[int, int | None] = {}
    current, limit = (attempts[-1] if attempts else None), None
    while current is not None and current.number not in valid:
        valid[current.number] = limit
        parent = current.resumed_from
        if not current.begun:
            limit, current = None, by_number.get(current.number - 1)
        elif parent is not None:
            limit, current = parent.step, by_number.get(parent.attempt)
    return valid


def began_anew(attempts: list[Attempt], job: str) -> bool:
    """Whether a TrainerJob has started anew already: a head that is replaced goes on with what it has begun."""
    return bool(job) and any(attempt.anew and attempt.begun and attempt.job == job for attempt in attempts)


def series(attempts: list[Attempt]) -> int:
    """The first attempt of the present series: what an earlier one has left is not its leftovers."""
    return max((attempt.number for attempt in attempts if attempt.anew and attempt.begun), default=0)


def _written(attempt: Attempt) -> bytes:
    resumed_from = attempt.resumed_from
    document = asdict(attempt) | {"resumed_from": str(resumed_from) if resumed_from else None}
    return json.dumps(document, indent=1).encode()


def _read(store: Store, number: int, path: str) -> Attempt:
    try:
        document = json.loads(store.get(path))
        resumed_from = document["resumed_from"]
        return Attempt(
            number,
            CheckpointId.parse(resumed_from) if resumed_from else None,
            document["world_size"],
            document["started_at"],
            document.get("anew", False),
            document.get("job", ""),
            document.get("begun", True),
        )
    except (ValueError, KeyError, TypeError):
        return Attempt(number, None, 0, "", begun=False)
