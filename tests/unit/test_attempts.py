"""Attempts by the thousand: what is read of them, and that nothing that counts is lost with the old ones."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.checkpoints import commit
from trainyard.checkpoint import attempts, catalogue, retain
from trainyard.checkpoint.attempts import Attempt
from trainyard.protocol.ending import Ending
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Entry, Store, open_store

KILLED = Ending(outcome="Infrastructure", message="killed")


class Requests:
    """How often a store was listed, read, and asked to delete."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lists = self.reads = self.deletes = 0
        listed, get, delete = Store.list, Store.get, Store.delete

        def count_list(store: Store, prefix: str = "") -> list[Entry]:
            self.lists += 1
            return listed(store, prefix)

        def count_get(store: Store, path: str) -> bytes:
            self.reads += 1
            return get(store, path)

        def count_delete(store: Store, paths: list[str]) -> None:
            self.deletes += len(paths)
            delete(store, paths)

        monkeypatch.setattr(Store, "list", count_list)
        monkeypatch.setattr(Store, "get", count_get)
        monkeypatch.setattr(Store, "delete", count_delete)


def start(store: Store, resumed: CheckpointId | None, **changes: object) -> Attempt:
    """An attempt as the driver claims and begins it."""
    known = attempts.list_attempts(store)
    claimed = attempts.claim(store, resumed, 2, catalogue.newest_attempt(known), begun=False, known=known, **changes)  # type: ignore[arg-type]
    assert claimed is not None
    attempts.begin(store, claimed)
    attempts.prune(store, claimed)
    return replace(claimed, begun=True)


def test_start_after_a_thousand_attempts_reads_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    first = commit(store, 10, 1)
    for number in range(1, 1000):  # of a version that recorded nothing of the attempts before
        attempts.claim(store, first, 2, after=number)
        attempts.end(store, number, KILLED)
    start(store, first)
    requests = Requests(monkeypatch)
    known = attempts.list_attempts(store)
    assert (requests.lists, requests.reads) == (1, 1)
    assert attempts.lineage(known) == {1001: None, 1: 10}
    start(store, first)
    assert requests.reads <= 3
    assert requests.deletes <= 64
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [first]


def test_files_of_old_attempts_are_deleted_and_their_checkpoints_stay(tmp_path: Path) -> None:
    store, kept = open_store(str(tmp_path)), []
    resumed = None
    for step in range(1, 301):
        started = start(store, resumed)
        resumed = commit(store, step, started.number)
        attempts.end(store, started.number, KILLED)
        kept.append(resumed)
    left = [entry.path for entry in store.list(layout.ATTEMPTS)]
    assert len(left) <= 2 * 101
    assert layout.attempt_path(1) not in left
    assert catalogue.committed(catalogue.list_checkpoints(store)) == kept[::-1]
    keep = retain.Retention(300, 0, None, greater_is_better=False)
    assert retain.retain(store, keep, [kept[-1]]) == []


def test_frozen_driver_that_prunes_late_deletes_nothing_that_counts(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    start(store, None)
    first = commit(store, 10, 1)
    frozen = start(store, first)
    for _ in range(200):
        start(store, first)
    attempts.prune(store, frozen)
    newest = attempts.list_attempts(store)[-1]
    assert newest.number == 202
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [first]


def test_what_began_from_scratch_is_known_after_its_file_is_gone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(1, 150):
        start(store, None, anew=number == 5, job="uid" if number == 5 else "")
    known = attempts.list_attempts(store)
    assert not store.exists(layout.attempt_path(5))
    assert attempts.series(known) == 5
    assert attempts.began_anew(known, "uid")
    assert not attempts.began_anew(known, "another")


def history(seed: int) -> list[Attempt]:
    """Attempts as drivers make them, each read with all the others, without records: some never begin."""
    dice = random.Random(seed)
    made: list[Attempt] = []
    steps: dict[int, int] = {}
    for number in range(1, dice.randint(2, 40)):
        valid = attempts.lineage(made)
        choices = [
            CheckpointId(step, attempt)
            for attempt, limit in valid.items()
            if attempt in steps
            for step in [dice.randint(1, min(steps[attempt], limit or 99))]
        ]
        resumed = dice.choice(choices) if choices and dice.random() < 0.9 else None
        anew = resumed is None and dice.random() < 0.5
        begun = dice.random() < 0.8
        job = f"uid-{dice.randint(1, 3)}" if anew else ""
        made.append(Attempt(number, resumed, 2, "", anew, job, begun))
        if begun and dice.random() < 0.7:
            steps[number] = (resumed.step if resumed else 0) + dice.randint(1, 50)
    return made


@pytest.mark.parametrize("seed", range(200))
def test_recorded_lineage_is_the_one_that_is_walked(seed: int, tmp_path: Path) -> None:
    store, whole = open_store(str(tmp_path)), history(seed)
    for count, attempt in enumerate(whole):
        known = attempts.list_attempts(store)
        claimed = attempts.claim(
            store, attempt.resumed_from, 2, count, attempt.anew, attempt.job, attempt.begun, known=known
        )
        assert claimed is not None
        assert claimed.before is not None
        walked, read = whole[: count + 1], attempts.list_attempts(store)
        assert read[-1].number == attempt.number
        assert attempts.lineage(read) == attempts.lineage(walked)
        assert attempts.series(read) == attempts.series(walked)
        for job in ("uid-1", "uid-2", "uid-3"):
            assert attempts.began_anew(read, job) == attempts.began_anew(walked, job)
