"""Lineage, choice and retention: functions from data to data, and over a store on disk."""

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast

import pytest

from tests.unit.checkpoints import commit
from trainyard.checkpoint import attempts, catalogue, restore, retain
from trainyard.checkpoint.attempts import Attempt
from trainyard.checkpoint.manifest import FileEntry, Manifest
from trainyard.checkpoint.transfer import CorruptCheckpointError
from trainyard.cluster.kubectl import Kubectl, TimedOutError
from trainyard.errors import JobError, NotFoundError
from trainyard.launch import savenow
from trainyard.protocol.ending import Cause, Ending
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Entry, Store, open_store


def attempt(number: int, resumed: tuple[int, int] | None = None) -> Attempt:
    return Attempt(number, CheckpointId(*resumed) if resumed else None, 2, "")


DAMAGED = Attempt(3, None, 0, "", begun=False)


@pytest.mark.parametrize(
    ("known", "valid"),
    [
        ([], {}),
        ([attempt(1)], {1: None}),
        ([attempt(1), attempt(2, (400, 1))], {2: None, 1: 400}),
        ([attempt(1), attempt(2, (400, 1)), attempt(3, (200, 1))], {3: None, 1: 200}),
        ([attempt(1), attempt(2, (400, 1)), attempt(3, (600, 2))], {3: None, 2: 600, 1: 400}),
        ([attempt(1), attempt(2)], {2: None}),
        ([attempt(1), attempt(2, (400, 1)), DAMAGED], {3: None, 2: None, 1: 400}),
    ],
    ids=["none", "first", "child", "sibling", "chain", "anew", "not begun"],
)
def test_lineage(known: list[Attempt], valid: dict[int, int | None]) -> None:
    assert attempts.lineage(known) == valid


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"number": 3, "resu'], ids=repr)
def test_an_attempt_whose_file_is_damaged_takes_nothing_with_it(tmp_path: Path, data: bytes) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    known = commit(store, 100, 1)
    attempts.claim(store, known, 2, after=1)
    attempts.claim(store, known, 2, after=2)
    store.put(layout.attempt_path(3), data)
    assert attempts.list_attempts(store)[2] == DAMAGED
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [known]
    assert attempts.claim(store, known, 2, after=3) is not None


def test_a_checkpoint_of_ours_is_adopted_by_the_names_that_trainer_looks_for(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    source = tmp_path / commit(store, 10, 1).folder
    for name in ("optimizer.pt.safetensors", "trainer_state.json"):
        (source / name).write_text("{}")
    restore.adopt(source, tmp_path / "checkpoint-10")
    found = {file.name for file in (tmp_path / "checkpoint-10").iterdir()}
    assert found == {"optimizer.pt", "model.safetensors", "trainer_state.json", layout.MANIFEST}


def test_one_that_was_not_committed_or_is_not_as_it_was_is_not_adopted(tmp_path: Path) -> None:
    store, target = open_store(str(tmp_path)), tmp_path / "checkpoint-10"
    source = (tmp_path / commit(store, 10, 1).folder).rename(tmp_path / "copied by hand")
    (source / "model.safetensors").write_bytes(b"y")
    with pytest.raises(CorruptCheckpointError, match="another SHA-256"):
        restore.adopt(source, target)
    (source / layout.SET_ASIDE).write_text("{}")
    with pytest.raises(JobError, match="was set aside"):
        restore.adopt(source, target)
    torn = tmp_path / commit(store, 20, 1).folder
    (torn / layout.MANIFEST).unlink()
    with pytest.raises(JobError, match="was never committed"):
        restore.adopt(torn, target)
    assert not target.exists()


def test_a_zombies_checkpoint_is_never_chosen(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    first = commit(store, 100, 1)
    attempts.claim(store, first, 2, after=1)
    commit(store, 200, 1)  # attempt 1 was frozen, woke up, and committed what nobody will go on from
    mine = commit(store, 150, 2)
    found = catalogue.list_checkpoints(store)
    assert catalogue.committed(found) == [mine, first]
    assert {str(each.id): each.state for each in found}["00000200-00001"] == "Superseded"


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    whole = commit(store, 100, 1)
    store.put("checkpoints/00000200-00001/model.safetensors", b"half")
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [whole]


def test_an_attempt_is_claimed_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert attempts.claim(store, None, 2, after=0) is not None
    assert attempts.claim(store, None, 2, after=0) is None


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "keep_every", "in_use", "gone"),
    [
        (3, 0, None, [], [10, 20]),
        (1, 0, None, [], [10, 20, 30, 40]),
        (1, 1, None, [], [10, 30, 40]),
        (1, 2, None, [10], [30, 40]),
        (1, 0, 20, [], [10, 30]),
        (9, 0, None, [], []),
    ],
    ids=["last", "one", "best", "best-and-in-use", "every", "all"],
)
def test_retention(keep_last: int, keep_best: int, keep_every: int | None, in_use: list[int], gone: list[int]) -> None:
    accuracy = {10: 0.5, 20: 0.9, 30: 0.7, 40: 0.8, 50: 0.9}
    manifests = [Manifest(step, 1, 2, "ddp", 8, (), {"eval_accuracy": value}) for step, value in accuracy.items()]
    used = [CheckpointId(step, 1) for step in in_use]
    keep = retain.Retention(keep_last, keep_best, "eval_accuracy", greater_is_better=True, keep_every=keep_every)
    expired = retain.expired(manifests, keep, used)
    assert [identity.step for identity in expired] == gone


def test_leftovers_of_dead_attempts_are_swept_and_a_save_in_progress_is_not(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    first = commit(store, 100, 1)
    store.put("checkpoints/00000200-00001/half", b"x")
    attempts.claim(store, first, 2, after=1)
    commit(store, 150, 2)
    store.put("checkpoints/00000250-00002/half", b"x")
    retain.retain(store, retain.Retention(5, 0, None, greater_is_better=False))
    assert [str(each.id) for each in catalogue.list_checkpoints(store)] == [
        "00000100-00001",
        "00000150-00002",
        "00000250-00002",
    ]


def test_the_best_is_the_best_number_whatever_is_none() -> None:
    loss = {10: 0.3, 20: math.nan, 30: 0.2, 40: 0.5}
    manifests = [Manifest(step, 1, 2, "ddp", 8, (), {"eval_loss": value}) for step, value in loss.items()]
    expired = retain.expired(manifests, retain.Retention(1, 1, "eval_loss", greater_is_better=False))
    assert [identity.step for identity in expired] == [10, 20]


def test_a_listing_that_is_late_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store here lists late; what one that did would leave out is left out in its place."""
    store, keep = open_store(str(tmp_path)), retain.Retention(2, 0, None, greater_is_better=False)
    attempts.claim(store, None, 2, after=0)
    first = commit(store, 100, 1)
    attempts.claim(store, first, 2, after=1)
    second = commit(store, 150, 2)
    attempts.claim(store, second, 2, after=2)
    third = [commit(store, step, 3) for step in (200, 250)]
    hidden, listed = {layout.attempt_path(3)}, Store.list
    monkeypatch.setattr(
        Store, "list", lambda self, prefix="": [each for each in listed(self, prefix) if each.path not in hidden]
    )
    assert retain.retain(store, keep, [second, third[1]]) == []
    hidden = {f"{first.folder}/manifest.json"}
    assert retain.retain(store, keep, [third[1]]) == [second]
    hidden = set()
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [third[1], third[0], first]


def test_the_save_that_was_asked_for_is_told_from_regular_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    listed, gone = Store.list, list[Entry]()

    def ask() -> None:
        commit(store, 1020, 1)
        gone.extend(store.list(layout.CHECKPOINTS))
        store.delete(each.path for each in gone)  # retention takes it after it was listed
        commit(store, 1015, 1)  # was under way
        requested = Manifest(1010, 1, 2, "ddp", 8, (FileEntry("model.safetensors", 1, ""),), requested=True)
        store.put("checkpoints/00001010-00001/manifest.json", requested.to_json())

    monkeypatch.setattr(
        Store, "list", lambda self, prefix="": [*listed(self, prefix), *(gone if prefix == layout.CHECKPOINTS else [])]
    )
    assert savenow.saved(store, 60.0, ask) == CheckpointId(1010, 1)


def test_nobody_waits_longer_for_a_save_than_asked_because_the_storage_hangs(tmp_path: Path) -> None:
    store, mended = open_store(str(tmp_path)), threading.Event()
    with pytest.raises(TimedOutError, match="within 0 s"):
        savenow.saved(store, 0.1, mended.wait)
    mended.set()


def test_a_save_that_the_run_has_ended_without_is_not_waited_for(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    with pytest.raises(TimedOutError):  # the next attempt may do it
        savenow.saved(store, 1.0, lambda: attempts.end(store, 1, Ending.fault(Cause.SIGNAL, "a rank was killed", 7)))
    attempts.claim(store, None, 2, after=1)
    with pytest.raises(NotFoundError, match=r"ended without the save: UserError, step 9\. the sky is falling"):
        savenow.saved(store, 60.0, lambda: attempts.end(store, 2, Ending.user_error("the sky is falling", 9)))
    with pytest.raises(TimedOutError):  # asked before the next attempt is claimed
        savenow.saved(store, 0.1, lambda: None)


def test_save_ends_when_its_run_is_stopped(tmp_path: Path) -> None:
    """The run is a real process that stops when it is asked to save."""
    store = open_store(str(tmp_path / "run"))
    attempts.claim(store, None, 1, after=0)
    saved = commit(store, 10, 1)
    code = (
        "import signal, sys; from trainyard.launch.node import only_run\n"
        "signal.signal(signal.SIGUSR2, lambda *_: sys.exit())\n"
        "with only_run(sys.argv[1], print): print('running', flush=True); signal.pause()"
    )
    running = subprocess.Popen([sys.executable, "-c", code, store.uri], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "running\n"
        with pytest.raises(NotFoundError, match=rf"was stopped meanwhile, .*; its newest checkpoint is {saved}"):
            savenow.ask_here(store, 60.0)
    finally:
        running.kill()
        running.communicate()


class Cluster:
    """kubectl of a cluster in which a job is in one state."""

    def __init__(self, words: str) -> None:
        self.words = words

    def run(self, verb: str, *_: str) -> str:
        return self.words if verb == "get" else ""


@pytest.mark.parametrize("words", ["true Running", " Suspending", " Complete", " Failed", ""])
def test_save_of_a_job_ends_when_nobody_will_run_it(tmp_path: Path, words: str) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(NotFoundError, match=r"stopped meanwhile, .*; it has no checkpoint"):
        savenow.ask_pod(store, cast("Kubectl", Cluster(words)), "job", 60.0)


@pytest.mark.parametrize("words", [" Running", "false Restarting", " "])
def test_save_of_a_job_that_runs_is_waited_for(tmp_path: Path, words: str) -> None:
    with pytest.raises(TimedOutError):
        savenow.ask_pod(open_store(str(tmp_path)), cast("Kubectl", Cluster(words)), "job", 0.3)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}'], ids=repr)
def test_a_torn_manifest_is_told_from_a_whole_one(data: bytes) -> None:
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(data)


def test_changed_manifest_is_detected() -> None:
    whole = Manifest(10, 1, 2, "ddp", 8, (FileEntry("model.safetensors", 1, ""),), {"loss": 0.5}).to_json()
    assert Manifest.from_json(whole).strategy == "ddp"
    for there, instead in ((b'"ddp"', b'"edp"'), (b'"size": 1', b'"size": "1"'), (b'"format": 1', b'"format": 3')):
        with pytest.raises(ValueError, match="not as it was written"):
            Manifest.from_json(whole.replace(there, instead))


def test_starting_anew_keeps_what_was_there(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    attempts.claim(store, None, 2, after=0)
    before = commit(store, 900, 1)
    attempts.claim(store, None, 2, after=1, anew=True)
    after = commit(store, 10, 2)
    retain.retain(store, retain.Retention(1, 0, None, greater_is_better=False))
    listed = catalogue.list_checkpoints(store)
    assert {each.id: each.state for each in listed} == {before: "Superseded", after: "Committed"}
    assert catalogue.committed(listed) == [after]


def test_a_deleted_checkpoint_leaves_no_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    identity = commit(store, 10, 1)
    (tmp_path / identity.folder / "part#1").touch()  # what obstore leaves when an upload is killed
    retain.remove(store, identity)
    assert not (tmp_path / identity.folder).exists()
