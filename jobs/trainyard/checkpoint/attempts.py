"""Attempts and their lineage.

Every start of the group of training processes is an attempt; a few are given up before it. It is claimed
with a conditional create, so two can never have the same number, and it records the checkpoint that it
resumed from. What an older attempt commits after it has begun (a frozen process that wakes up, a partitioned
node) is outside the lineage.

A run may have thousands of attempts. So each attempt also records the lineage before it (`Before`). One listing and the
file of the newest attempt that has begun give the whole lineage, and old files can be deleted.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from trainyard import errors
from trainyard.protocol.ending import Ending
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store

_KEPT = 100
"""Newest attempts whose files stay, for people to look at and for drivers that were frozen meanwhile."""
_DELETED_AT_ONCE = 32
"""Attempts that one start deletes at most: it must not wait for thousands of requests."""
_READ_AT_ONCE = 16


@dataclass(frozen=True)
class Before:
    """The lineage before an attempt, as it was when the attempt was claimed."""

    ancestors: dict[int, int | None]
    """The attempts whose checkpoints count besides its own, each with the last step that counts (None: every step)."""
    series: int = 0
    """The first attempt of the series: the newest that was started from scratch on purpose; 0 when there is none."""
    anew_jobs: tuple[str, ...] = ()
    """The TrainerJobs, by uid, that have started from scratch on purpose."""


@dataclass(frozen=True)
class Attempt:
    """One start of the training processes."""

    number: int
    resumed_from: CheckpointId | None
    world_size: int
    started_at: str
    anew: bool = False
    """Started from scratch on purpose (resume: Never), although there were checkpoints."""
    job: str = ""
    """The uid of the TrainerJob on a cluster; empty for `trainyard run`."""
    begun: bool = True
    """False from the claim until the checkpoint to resume from is certain. Until then, and where its file cannot be
    read, the end of the previous attempt counts."""
    before: Before | None = None
    """None: the lineage must be read from the earlier attempts."""


def now() -> str:
    """The time, in UTC, as RFC 3339 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def list_attempts(store: Store) -> list[Attempt]:
    """The attempts that the lineage follows from, oldest first: the newest is the last of them.

    Those before the newest that has begun are left out when it says what follows from them.
    """
    numbers = sorted(_numbers(store), reverse=True)
    attempts: list[Attempt] = []
    # The newest has nearly always begun; the few after it that have not are read with the next ones.
    for start, end in ((0, 1), (1, _READ_AT_ONCE), (_READ_AT_ONCE, len(numbers))):
        attempts += _read_all(store, numbers[start:end])
        for index, attempt in enumerate(attempts):
            if attempt.begun and attempt.before is not None:
                return attempts[index::-1]
    return attempts[::-1]


def newest_number(store: Store) -> int:
    """The number of the newest attempt, 0 when there is none: list_attempts without reading what each holds."""
    return max(_numbers(store), default=0)


def claim(
    store: Store,
    resumed_from: CheckpointId | None,
    world_size: int,
    after: int,
    anew: bool = False,
    job: str = "",
    begun: bool = True,
    known: list[Attempt] | None = None,
) -> Attempt | None:
    """Claim attempt number `after + 1`; None when another process was faster, and the caller must look again.

    A caller that is not yet sure of the checkpoint claims the attempt as not begun, and calls begin() later. `known`:
    what list_attempts() returned.
    """
    number = after + 1
    before = _before(known, number, resumed_from, job if anew else None) if known is not None else None
    attempt = Attempt(number, resumed_from, world_size, now(), anew, job, begun, before)
    return attempt if store.create(layout.attempt_path(number), _written(attempt)) else None


def begin(store: Store, attempt: Attempt) -> None:
    """Mark an attempt as begun. What earlier attempts committed now counts up to the checkpoint it resumes from."""
    store.put(layout.attempt_path(attempt.number), _written(replace(attempt, begun=True)))


def prune(store: Store, newest: Attempt) -> None:
    """Delete the files of old attempts, _DELETED_AT_ONCE at most, when `newest` records the lineage before it.

    A driver that was frozen may call it late: the lineage of a later attempt holds no older one that its own does not.
    """
    if newest.before is None or newest.number <= _KEPT:
        return
    old = sorted(number for number in _numbers(store) if number <= newest.number - _KEPT)
    for number in old[:_DELETED_AT_ONCE]:
        store.delete([layout.attempt_end_path(number), layout.attempt_path(number)])


def end(store: Store, number: int, ending: Ending) -> None:
    """Keep how an attempt ended, and when."""
    document = ending.document() | {"ended_at": now()}
    store.put(layout.attempt_end_path(number), json.dumps(document, indent=1).encode())


def read_end(store: Store, number: int) -> Ending:
    """How an attempt ended. Raises NotFoundError when it has not, or died before it could keep its end.

    Raises ValueError when what was kept is no ending.
    """
    return Ending.decode(store.get(layout.attempt_end_path(number)))


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
        elif current.before is not None:
            return {**current.before.ancestors, **valid}
        elif parent is not None:
            limit, current = parent.step, by_number.get(parent.attempt)
        else:
            current = None
    return valid


def began_anew(attempts: list[Attempt], job: str) -> bool:
    """Whether a TrainerJob has started anew already: a head that is replaced goes on with what it has begun."""
    return bool(job) and job in _anew_jobs(attempts)


def series(attempts: list[Attempt]) -> int:
    """The first attempt of the present series: what an earlier one has left is not its leftovers."""
    begun = [attempt for attempt in attempts if attempt.begun]
    recorded = [attempt.before.series for attempt in begun if attempt.before is not None]
    return max([*recorded, *(attempt.number for attempt in begun if attempt.anew)], default=0)


def _anew_jobs(attempts: list[Attempt]) -> set[str]:
    begun = [attempt for attempt in attempts if attempt.begun]
    recorded = {job for attempt in begun if attempt.before is not None for job in attempt.before.anew_jobs}
    return recorded | {attempt.job for attempt in begun if attempt.anew}


def _before(
    known: list[Attempt], number: int, resumed_from: CheckpointId | None, anew_job: str | None
) -> Before | None:
    """What an attempt of a number records; None when the checkpoint is of no attempt that counts.

    `anew_job`: the uid of the TrainerJob that starts from scratch on purpose; None when it does not.
    """
    ancestors: dict[int, int | None] = {}
    if resumed_from is not None:
        valid = lineage(known)
        if resumed_from.attempt not in valid:
            return None
        ancestors = {older: step for older, step in valid.items() if older < resumed_from.attempt}
        ancestors[resumed_from.attempt] = resumed_from.step
    jobs = _anew_jobs(known)
    if anew_job is None:
        return Before(ancestors, series(known), tuple(sorted(jobs)))
    return Before(ancestors, number, tuple(sorted(jobs | {anew_job})))


def _numbers(store: Store) -> Iterable[int]:
    """The numbers of all attempts, in no order."""
    numbers = (layout.attempt_number(entry.path) for entry in store.list(layout.ATTEMPTS))
    return [number for number in numbers if number is not None]


def _read_all(store: Store, numbers: list[int]) -> list[Attempt]:
    """The attempts of some numbers, in their order."""
    if len(numbers) < 2:
        return [_read(store, number) for number in numbers]
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        return list(pool.map(lambda number: _read(store, number), numbers))


def _written(attempt: Attempt) -> bytes:
    resumed_from = attempt.resumed_from
    document = asdict(attempt) | {"resumed_from": str(resumed_from) if resumed_from else None}
    return json.dumps(document, indent=1).encode()


def _read(store: Store, number: int) -> Attempt:
    try:
        document = json.loads(store.get(layout.attempt_path(number)))
        resumed_from = document["resumed_from"]
        before = document.get("before")
        return Attempt(
            number,
            CheckpointId.parse(resumed_from) if resumed_from else None,
            document["world_size"],
            document["started_at"],
            document.get("anew", False),
            document.get("job", ""),
            document.get("begun", True),
            _as_before(before) if before is not None else None,
        )
    except (errors.NotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Attempt(number, None, 0, "", begun=False)  # damaged, or deleted since it was listed


def _as_before(document: dict[str, Any]) -> Before:
    """What _written() has made of it: JSON has texts for keys."""
    ancestors = {int(number): step for number, step in document["ancestors"].items()}
    return Before(ancestors, document["series"], tuple(document["anew_jobs"]))
