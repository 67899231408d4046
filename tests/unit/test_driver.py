"""What the driver decides before an attempt."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fill
from tests.unit.checkpoints import commit
from tests.unit.jobs import job
from trainyard.checkpoint import attempts, catalogue
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.retain import remove
from trainyard.errors import JobError, NotFoundError
from trainyard.launch import retry
from trainyard.launch.causes import died
from trainyard.launch.driver import Driver
from trainyard.launch.node import Node
from trainyard.launch.progress import message
from trainyard.plan.facts import Facts
from trainyard.plan.plan import plan
from trainyard.protocol.ending import Cause, Ending
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store, open_store
from trainyard.train.work import Work


@pytest.mark.parametrize(
    ("workers", "per_device", "written_by", "changes"),
    [
        (2, 4, 2, {}),
        (1, 4, 2, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        (1, 4, 1, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        (2, 2, 2, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    ],
    ids=["as it was", "fewer workers", "fewer workers, once more", "a smaller batch a process"],
)
def test_a_step_stays_as_many_samples_as_it_was(
    tmp_path: Path, workers: int, per_device: int, written_by: int, changes: dict[str, Any]
) -> None:
    assert driver(tmp_path, workers, per_device)._fit(checkpoint(written_by)) == changes


def test_processes_that_cannot_share_the_batch_are_refused_with_those_that_can(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="these can: 1, 2, 4, 8"):
        driver(tmp_path, 3, 4)._fit(checkpoint(2))


def test_a_checkpoint_that_goes_while_it_is_brought_gives_way_to_the_newer_one(tmp_path: Path) -> None:
    """An attempt that nobody could end commits, and keeps the newest only."""
    made, _, new = overtaken(tmp_path / "run", remove)
    restored = made._restore(attempts.list_attempts(made.store), set())
    assert restored is not None
    assert restored.id == new
    assert [each.id for each in catalogue.list_checkpoints(made.store)] == [new]


def test_a_step_that_is_committed_while_the_one_before_is_brought_is_not_lost(tmp_path: Path) -> None:
    """By an attempt that nobody could end: what it commits after the next one is claimed would not count."""
    made, old, new = overtaken(tmp_path / "run", lambda store, old: None)
    assert made._next_attempt(first=False).resumed == new
    assert catalogue.committed(catalogue.list_checkpoints(made.store)) == [new, old]


@pytest.mark.parametrize("when", ["at the claim", "while it is brought"])
def test_what_was_committed_meanwhile_counts_also_when_the_driver_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    made, old, new = overtaken(tmp_path / "run", lambda store, old: None)
    told, claim = made.tell, attempts.claim

    def dies(event: dict[str, Any]) -> None:
        told(event)
        if event.get("id") == str(new):
            raise KeyboardInterrupt

    def claims_and_dies(*args: Any, **kwargs: Any) -> None:
        claim(*args, **kwargs)
        raise KeyboardInterrupt

    if when == "at the claim":
        monkeypatch.setattr(attempts, "claim", claims_and_dies)
    else:
        made.tell = dies
    with pytest.raises(KeyboardInterrupt):
        made._next_attempt(first=False)
    assert catalogue.committed(catalogue.list_checkpoints(made.store)) == [new, old]


def test_a_head_that_is_replaced_goes_on_with_what_its_job_began_anew(tmp_path: Path) -> None:
    """resume: Never is said once: to a TrainerJob of its own uid, and to each `trainyard run`."""
    folder = tmp_path / "run"
    first = driver(folder, 1, 4, "one", resume="Never")
    commit(first.store, 5, 1)
    attempts.claim(first.store, None, 1, after=0)
    first.store.put(layout.METRICS, b'{"step": 5, "time": 1.0}')
    first.store.put(f"{layout.TRACKERS}/ids.json", b'{"wandb": "1"}')
    begun = first._next_attempt(first=True)
    assert (begun.attempt, begun.resumed) == (2, None)
    assert first.store.get(layout.METRICS) == b"", "nothing of the former run is lost in this one"
    assert first.store.list(layout.TRACKERS) == [], "its trackers show another run"
    saved = commit(first.store, 10, 2)
    assert driver(folder, 1, 4, "one", resume="Never")._next_attempt(first=True).resumed == saved
    assert driver(folder, 1, 4, "two", resume="Never")._next_attempt(first=True).resumed is None
    for number in (5, 6):
        here = driver(folder, 1, 4, resume="Never")._next_attempt(first=True)
        assert (here.attempt, here.resumed) == (number, None)


def test_what_a_listing_does_not_show_yet_is_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is mounted on several machines is listed from a cache: what one wrote last another may not see."""
    made = driver(tmp_path / "run", 1, 4)
    attempts.claim(made.store, None, 1, after=0)
    old, new = commit(made.store, 10, 1), commit(made.store, 20, 1)
    made.store.put(layout.NEWEST, str(new).encode())
    listed = Store.list
    monkeypatch.setattr(
        Store, "list", lambda self, prefix="": [each for each in listed(self, prefix) if str(new) not in each.path]
    )
    assert made._next_attempt(first=False).resumed == new
    catalogue.set_aside(made.store, new, "a flipped bit")
    assert made._next_attempt(first=False).resumed == old


def test_a_run_whose_checkpoints_are_all_damaged_tells_that_it_begins_anew(tmp_path: Path) -> None:
    made, told = driver(tmp_path / "run", 1, 4), list[str]()
    made.tell = lambda event: told.extend(filter(None, [message(event)]))
    attempts.claim(made.store, None, 1, after=0)
    for step in (10, 20):
        made.store.put(f"{commit(made.store, step, 1).folder}/model.safetensors", b"y")
    assert made._next_attempt(first=True).resumed is None
    words = "is corrupt and was set aside (checkpoints/{0}/model.safetensors has another SHA-256 than committed)"
    assert told == [
        *(f"checkpoint {name} {words.format(name)}" for name in ("00000020-00001", "00000010-00001")),
        "no whole checkpoint is left: training begins anew",
        "attempt 2",
    ]
    with pytest.raises(NotFoundError, match=r"no committed checkpoint \(set aside: 2; `trainyard ckpt ls` tells why\)"):
        driver(tmp_path / "run", 1, 4, resume="Required")._next_attempt(first=True)
    told.clear()
    assert made._next_attempt(first=True).resumed is None
    assert told == ["no whole checkpoint is left: training begins anew", "attempt 3"], "also in a later start"


def test_a_checkpoint_of_a_later_version_is_not_set_aside(tmp_path: Path) -> None:
    made = driver(tmp_path / "run", 1, 4)
    attempts.claim(made.store, None, 1, after=0)
    identity = commit(made.store, 10, 1)
    path = f"{identity.folder}/{layout.MANIFEST}"
    document = json.loads(made.store.get(path))
    del document["sha256"]
    made.store.put(path, json.dumps(document | {"colour": "blue"}).encode())
    assert made._next_attempt(first=False).resumed == identity
    made.store.put(path, json.dumps(document | {"format": 2}).encode())
    with pytest.raises(JobError, match="format 2"):
        made._restore(attempts.list_attempts(made.store), set())
    assert catalogue.committed(catalogue.list_checkpoints(made.store)) == [identity]


@pytest.mark.parametrize(
    ("saved", "status", "message"),
    [
        (False, -15, "stopped before there was a new step to save"),
        (True, -15, "stopped after its last save"),
        (True, -9, "stopped without a save: rank 0: the training process was killed (SIGKILL; out of memory?)"),
    ],
    ids=["before its first step", "in the evaluation at the end", "out of memory while it saves"],
)
def test_who_stops_it_is_told_the_step_that_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool, status: int, message: str
) -> None:
    made = driver(tmp_path / "run", 1, 4)

    def attempt(work: Work) -> Ending:
        if saved:
            commit(made.store, 10, work.attempt)
        made.stopping.set()
        end = died(status, tmp_path / "log")
        return replace(end, message=f"rank 0: {end.message}")

    monkeypatch.setattr(made, "_attempt", attempt)
    assert made.run() == Ending.stopped(message, 10 if saved else 0)


@pytest.mark.parametrize(
    ("ending", "times"),
    [
        (Ending.fault(Cause.CODE, "KeyError: 'text'", 5000, "train.py:3"), 2),
        (Ending.fault(Cause.NETWORK, "a server cannot be reached: 429", 0, "hub.py:1"), 8),
        (Ending.fault(Cause.SIGNAL, "rank 0: the training process was killed", 7), 3),
    ],
    ids=["raises at step 5,000", "hub away before a step", "killed"],
)
def test_same_failure_again_is_the_end_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: Ending, times: int
) -> None:
    """Also on a cluster, where another outcome would have the pod replaced."""
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.0)
    made = driver(tmp_path / "run", 1, 4)
    monkeypatch.setattr(made, "_attempt", lambda work: ending)
    last = made.run()
    assert (last.outcome, last.where, last.step) == ("UserError", ending.where, ending.step)
    assert last.message == f"{ending.message} ({times} times at step {ending.step}, nothing committed between)"
    assert attempts.newest_number(made.store) == times


def test_an_attempt_begins_where_the_driver_does_and_not_where_training_does(tmp_path: Path) -> None:
    made = driver(tmp_path / "run", 1, 4)
    first = made._next_attempt(first=False)
    assert first.began is not None
    assert first.restoring == 0
    commit(made.store, 10, first.attempt)
    second = made._next_attempt(first=False)
    assert second.began is not None
    assert first.began < second.began < second.began + second.restoring <= time.time()


@pytest.mark.parametrize(
    ("whose", "times"), [("attempt-00001", 1), (".", 2)], ids=["by what a dead attempt has staged", "by somebody else"]
)
def test_a_disk_that_is_full_between_two_attempts_is_waited_for(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, whose: str, times: int
) -> None:
    made, told = driver(tmp_path / "run", 1, 4), list[str]()
    made.node = Node(small_disk, small_disk)

    def attempt(work: Work) -> Ending:
        if work.resumed is not None:
            return Ending.complete("", 20)
        commit(made.store, 10, work.attempt)
        (small_disk / whose).mkdir(exist_ok=True)
        fill(small_disk / whose)
        return Ending.fault(Cause.SIGNAL, "killed", 15)

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "restart":
            told.append(event["message"])
            if len(told) == 3:
                (small_disk / whose / "fill").unlink()

    monkeypatch.setattr(made, "_attempt", attempt)
    made.tell = tell
    assert made.run() == Ending.complete("", 20)
    assert [text.partition(" on ")[0] for text in told] == ["killed", *["no space left"] * times]


def overtaken(folder: Path, then: Callable[[Store, CheckpointId], object]) -> tuple[Driver, CheckpointId, CheckpointId]:
    """A driver, a checkpoint, and a newer one that is committed as soon as the first is brought."""
    made = driver(folder, 1, 4)
    attempts.claim(made.store, None, 1, after=0)
    old, new = commit(made.store, 10, 1), CheckpointId(20, 1)

    def meanwhile(event: dict[str, Any]) -> None:
        if event.get("id") == str(old):
            commit(made.store, new.step, new.attempt)
            then(made.store, old)

    made.tell = meanwhile
    return made, old, new


def driver(folder: Path, workers: int, per_device: int, uid: str = "", **spec: Any) -> Driver:
    made = job(workers={"count": workers}, trainingArguments={"per_device_train_batch_size": per_device}, **spec)
    store, node = open_store(str(folder)), Node(folder, folder)
    return Driver(made, plan(made, Facts()), store, node, {}, lambda _: None, uid=uid)


def checkpoint(world_size: int) -> Manifest:
    return Manifest(10, 1, world_size, "ddp", 8, ())
