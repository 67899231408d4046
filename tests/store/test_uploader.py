"""What the uploader makes of tickets: commits when every rank and every node has its part there, and not before."""

import ctypes
import dataclasses
import functools
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.costs import COSTS, Cost
from tests.store.tickets import ticket
from trainyard.checkpoint import attempts, catalogue, doorbell, restore
from trainyard.checkpoint.restore import Seats
from trainyard.checkpoint.retain import Retention
from trainyard.checkpoint.staging import Receipt, StagedFile, Tickets
from trainyard.checkpoint.uploader import Uploader
from trainyard.errors import BusyError, StorageError
from trainyard.launch import orphans
from trainyard.launch.node import only_run, open_node
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import CHUNK_BYTES, Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(str(tmp_path / "store"))
    attempts.claim(made, None, 2, after=0)
    return made


def test_a_part_is_sent_when_every_rank_of_the_node_has_staged_its_own(store: Store, tmp_path: Path) -> None:
    tickets, told = Tickets(tmp_path / "tickets"), list[dict[str, object]]()
    uploader = Uploader(tickets, told.append)
    tickets.leave(ticket(store, tmp_path / "a", 0, world=2, local=2))
    assert not uploader.work()
    assert catalogue.list_checkpoints(store) == []
    tickets.leave(ticket(store, tmp_path / "a", 1, world=2, local=2))
    assert not uploader.work()
    (identity,) = catalogue.committed(catalogue.list_checkpoints(store))
    manifest = catalogue.read_manifest(store, identity)
    assert [entry.path for entry in manifest.files] == ["rng_state_0.pth", "rng_state_1.pth"]
    assert manifest.files[1].sha256 == hashlib.sha256(b"\1" * 1000).hexdigest()
    assert told[-1]["event"] == "checkpoint"
    receipt = tickets.receipt(identity)
    assert receipt is not None
    assert receipt.state == "Committed"


@pytest.mark.parametrize("size", [1000, CHUNK_BYTES + 1000], ids=["whole", "in parts"])
def test_what_was_cut_short_after_it_was_staged_is_given_up_and_holds_nothing_up(
    store: Store, tmp_path: Path, staging: Path, size: int
) -> None:
    tickets = Tickets(tmp_path / "tickets")
    cut, good = (ticket(store, staging, step=step, size=size) for step in (10, 20))
    tickets.leave(cut)
    tickets.leave(good)
    os.truncate(cut.files[0].source, size - 100)
    assert not Uploader(tickets, lambda told: None).work()
    receipt = tickets.receipt(cut.id)
    assert receipt is not None
    assert receipt.state == "Abandoned"
    assert "shrunk" in receipt.message
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [good.id]


def test_rank_0s_node_commits_when_every_node_has_listed_its_part(store: Store, tmp_path: Path) -> None:
    first, second = Tickets(tmp_path / "one"), Tickets(tmp_path / "two")
    first.leave(ticket(store, tmp_path / "a", 0, world=2, local=1, node=0))
    here = Uploader(first, lambda told: None)
    assert here.work(), "the other node's part is waited for"
    assert catalogue.committed(catalogue.list_checkpoints(store)) == []
    second.leave(ticket(store, tmp_path / "b", 1, world=2, local=1, node=1))
    assert not Uploader(second, lambda told: None).work()
    assert not here.work()
    (identity,) = catalogue.committed(catalogue.list_checkpoints(store))
    assert len(catalogue.read_manifest(store, identity).files) == 2


def test_every_node_is_waited_for_however_many_ranks_each_has(store: Store, tmp_path: Path) -> None:
    nodes = [Tickets(tmp_path / name) for name in ("one", "two", "three")]
    uploaders = [Uploader(tickets, lambda told: None) for tickets in nodes]
    for rank, (node, local) in enumerate([(0, 2), (0, 2), (1, 1), (2, 1)]):
        assert catalogue.committed(catalogue.list_checkpoints(store)) == []
        nodes[node].leave(ticket(store, tmp_path / "a", rank, world=4, local=local, node=node, nodes=3))
        uploaders[node].work()
        uploaders[0].work()
    (identity,) = catalogue.committed(catalogue.list_checkpoints(store))
    assert len(catalogue.read_manifest(store, identity).files) == 4


def test_a_commit_that_fails_sends_no_file_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets, failures, put = Tickets(tmp_path / "tickets"), ["cut", "cut"], Store.put

    def cut(self: Store, path: str, data: bytes) -> None:
        if path.endswith(layout.MANIFEST) and failures:
            raise StorageError(failures.pop())
        put(self, path, data)

    monkeypatch.setattr(Store, "put", cut)
    tickets.leave(ticket(store, tmp_path / "a"))
    uploader, own = Uploader(tickets, lambda told: None), tmp_path / "store/checkpoints/00000010-00001/rng_state_0.pth"
    assert uploader.work()
    sent = own.stat().st_mtime_ns
    while uploader.work():  # it makes a pause of a second, and of two
        time.sleep(0.05)
    assert (failures, own.stat().st_mtime_ns) == ([], sent)
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [CheckpointId(10, 1)]


def test_a_part_that_never_comes_is_given_up_when_the_next_attempt_begins(store: Store, tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "one")
    tickets.leave(ticket(store, tmp_path / "a", 0, world=2, local=1))
    uploader = Uploader(tickets, lambda told: None)
    assert uploader.work()
    attempts.claim(store, None, 2, after=1)
    assert not uploader.work()
    receipt = tickets.receipt(CheckpointId(10, 1))
    assert receipt is not None
    assert receipt.state == "Abandoned"
    assert catalogue.committed(catalogue.list_checkpoints(store)) == []


def test_a_part_that_another_node_gives_up_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    first, second, told = Tickets(tmp_path / "one"), Tickets(tmp_path / "two"), list[dict[str, object]]()
    here, there = Uploader(first, told.append), Uploader(second, lambda told: None)
    first.leave(ticket(store, tmp_path / "a", 0, world=4, local=2))
    first.leave(ticket(store, tmp_path / "a", 1, world=4, local=2))
    assert here.work()
    second.leave(dataclasses.replace(ticket(store, tmp_path / "b", 2, world=4, local=2, node=1), void="it has changed"))
    assert not there.work(), "its other rank has yet to say that it is ready"
    assert here.work()
    second.leave(ticket(store, tmp_path / "b", 3, world=4, local=2, node=1))
    assert not there.work()
    assert not here.work()
    receipts = [tickets.receipt(CheckpointId(10, 1)) for tickets in (first, second)]
    assert [receipt and receipt.state for receipt in receipts] == ["Abandoned", "Abandoned"]
    assert "node 1 gave up its part: it has changed" in str(told[-1]["text"])
    assert catalogue.committed(catalogue.list_checkpoints(store)) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"node": 1, "entries": [{"pa'], ids=repr)
def test_a_list_of_another_node_that_is_damaged_is_told(store: Store, tmp_path: Path, data: bytes) -> None:
    tickets, told = Tickets(tmp_path / "one"), list[dict[str, object]]()
    here = Uploader(tickets, told.append)
    for rank in range(2):
        tickets.leave(ticket(store, tmp_path / "a", rank, world=4, local=2))
    assert here.work()
    store.put(layout.parts_path(CheckpointId(10, 1), 1), data)
    assert not here.work()
    assert "parts/1.json is damaged" in str(told[-1]["text"])
    assert catalogue.committed(catalogue.list_checkpoints(store)) == []


def test_an_object_of_another_node_that_is_gone_delays_the_commit_and_is_not_sent_again_from_here(
    store: Store, tmp_path: Path
) -> None:
    first, second, told = Tickets(tmp_path / "one"), Tickets(tmp_path / "two"), list[dict[str, object]]()
    second.leave(ticket(store, tmp_path / "b", 1, world=2, local=1, node=1))
    assert not Uploader(second, lambda told: None).work()
    stored = tmp_path / "store/checkpoints/00000010-00001/rng_state_1.pth"
    content = stored.read_bytes()
    stored.unlink()
    first.leave(ticket(store, tmp_path / "a", 0, world=2, local=1))
    here = Uploader(first, told.append)
    own = tmp_path / "store/checkpoints/00000010-00001/rng_state_0.pth"
    assert here.work()
    written = own.stat().st_mtime_ns
    assert here.work()
    assert (own.stat().st_mtime_ns, told) == (written, [])
    stored.write_bytes(content)
    assert not here.work()
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [CheckpointId(10, 1)]


def test_an_attempt_that_wakes_up_late_leaves_the_curves_and_the_checkpoints_of_the_next_alone(
    store: Store, tmp_path: Path
) -> None:
    tickets, late = Tickets(tmp_path / "tickets"), ticket(store, tmp_path / "a", step=900)
    attempts.claim(store, None, 1, after=1)
    tickets.leave(ticket(store, tmp_path / "a", step=5, attempt=2))
    tickets.leave(ticket(store, tmp_path / "a", step=6, attempt=2))
    Uploader(tickets, lambda told: None).work()
    store.put(layout.METRICS, b"of attempt 2")
    (tmp_path / "metrics.jsonl").write_text("of attempt 1")
    assert late.commit is not None
    frugal = dataclasses.replace(late.commit, metrics_file=str(tmp_path / "metrics.jsonl"), retention=Retention(1, 0, None, False))  # fmt: skip
    tickets.leave(dataclasses.replace(late, commit=frugal))
    Uploader(tickets, lambda told: None).work()
    assert store.get(layout.METRICS) == b"of attempt 2"
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [CheckpointId(6, 2), CheckpointId(5, 2)]


def test_what_is_still_staged_is_not_downloaded_and_what_was_overwritten_is(store: Store, tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "tickets")
    tickets.leave(ticket(store, tmp_path / "a"))
    Uploader(tickets, lambda told: None).work()
    stored = tmp_path / "store/checkpoints/00000010-00001/rng_state_0.pth"
    content = stored.read_bytes()
    stored.unlink()
    seats = Seats([0], 1)
    restore.bring(store, tickets, CheckpointId(10, 1), tmp_path / "back", seats)
    assert (tmp_path / "back/rng_state_0.pth").read_bytes() == content

    stored.write_bytes(content)
    (tmp_path / "a/10-rng_state_0.pth").write_bytes(b"x" * 1000)
    restore.bring(store, tickets, CheckpointId(10, 1), tmp_path / "again", seats)
    assert (tmp_path / "again/rng_state_0.pth").read_bytes() == content


def test_a_node_brings_what_its_ranks_need_and_everything_when_the_number_has_changed(store: Store, tmp_path: Path) -> None:  # fmt: skip
    tickets = Tickets(tmp_path / "tickets")
    for rank in (0, 1):
        tickets.leave(ticket(store, tmp_path / "a", rank, world=2, local=2))
    Uploader(tickets, lambda told: None).work()
    identity, nowhere = CheckpointId(10, 1), Tickets(tmp_path / "nowhere")
    restore.bring(store, nowhere, identity, tmp_path / "own", Seats([1], 2))
    assert [file.name for file in (tmp_path / "own").glob("*.pth")] == ["rng_state_1.pth"]
    restore.bring(store, nowhere, identity, tmp_path / "all", Seats([0], 1))
    assert len(list((tmp_path / "all").glob("*.pth"))) == 2


def test_who_does_not_go_on_from_a_checkpoint_gets_no_optimizer(store: Store, tmp_path: Path) -> None:
    """The best one, which is loaded for its weights: two thirds of it are the optimizer's."""
    tickets, left = Tickets(tmp_path / "tickets"), ticket(store, tmp_path / "a")
    (tmp_path / "optimizer").write_bytes(b"o")
    names = ("optimizer.pt.safetensors", "optimizer_0/shard_rank_0.safetensors", "model.safetensors")
    files = tuple(StagedFile(name, str(tmp_path / "optimizer"), 1) for name in names)
    tickets.leave(dataclasses.replace(left, files=files))
    Uploader(tickets, lambda told: None).work()
    there = tmp_path / "there"
    restore.bring(store, Tickets(tmp_path / "nowhere"), left.id, there, Seats([0], 1), to_resume=False)
    assert [file.name for file in there.rglob("*.safetensors")] == ["model.safetensors"]


def test_a_torn_ticket_is_none_and_one_without_its_files_is_given_up(store: Store, tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "tickets")
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets/00000010-00001-rank-0.json").write_text('{"step": 10, ')
    assert tickets.waiting() == []
    tickets.leave(ticket(store, tmp_path / "a", step=20))
    (tmp_path / "a/20-rng_state_0.pth").unlink()  # its attempt was swept
    Uploader(tickets, lambda told: None).work()
    assert tickets.receipt(CheckpointId(20, 1)) is not None
    assert catalogue.committed(catalogue.list_checkpoints(store)) == []


def test_an_attempt_that_was_swept_does_not_keep_the_next_from_committing(store: Store, tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "tickets")
    old = ticket(store, tmp_path / "a", step=900)
    assert old.commit is not None
    tickets.leave(dataclasses.replace(old, commit=dataclasses.replace(old.commit, metrics_file=str(tmp_path / "gone"))))
    attempts.claim(store, None, 1, after=1)
    tickets.leave(dataclasses.replace(ticket(store, tmp_path / "a", step=5), attempt=2))
    assert not Uploader(tickets, lambda told: None).work()
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [CheckpointId(5, 2)]
    tickets.forget_before(2)
    assert {file.name for file in (tmp_path / "tickets").iterdir()} == {
        "00000005-00002-rank-0.json", "00000005-00002-receipt.json",
    }  # fmt: skip


def test_a_listing_that_is_late_delays_a_commit_and_never_makes_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server here lists late; what one that did would say is said in its place."""
    tickets, late = Tickets(tmp_path / "tickets"), True
    listed = Store.list
    monkeypatch.setattr(Store, "list", lambda self, prefix="": [] if late else listed(self, prefix))
    tickets.leave(ticket(store, tmp_path / "a"))
    told = list[dict[str, object]]()
    uploader, start = Uploader(tickets, told.append), time.monotonic()
    assert uploader.work(), "it will look again"
    assert "is not there after its upload" in str(told[-1]["text"])
    late, mended = False, time.monotonic()
    assert catalogue.committed(catalogue.list_checkpoints(store)) == []
    while uploader.work():  # it makes a pause of a second
        time.sleep(0.05)
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [CheckpointId(10, 1)]
    COSTS.append(Cost("a listing that lacks what was uploaded", mended - start, time.monotonic() - mended))


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ_by_an_hour_change_no_order(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    first, second = Tickets(tmp_path / "one"), Tickets(tmp_path / "two")
    first.leave(ticket(store, tmp_path / "a", step=10))
    Uploader(first, lambda told: None).work()
    skewed = time.time
    monkeypatch.setattr(time, "time", lambda: skewed() + hours * 3600)
    start = time.monotonic()
    attempts.claim(store, CheckpointId(10, 1), 1, after=1)
    second.leave(ticket(store, tmp_path / "b", step=20, attempt=2))
    Uploader(second, lambda told: None).work()
    found = catalogue.committed(catalogue.list_checkpoints(store))
    assert found == [CheckpointId(20, 2), CheckpointId(10, 1)]
    COSTS.append(Cost(f"a clock that is an hour {'behind' if hours < 0 else 'ahead'}", None, time.monotonic() - start))


OWNER = """
import sys, time
from trainyard.launch.node import only_run, open_node
from trainyard.launch.uploads import Uploads

with only_run(sys.argv[1], print) as held, open_node() as node:
    print(Uploads(node, [held]).process.pid, node.folder, node.bell, flush=True)
    time.sleep(600)
"""


def owned_uploader(tmp_path: Path) -> tuple["subprocess.Popen[str]", psutil.Process, Path]:
    """A run's owner, its uploader, which listens, and their node's folder."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "trainyard"], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    pid, folder, bell = owner.stdout.readline().split()
    doorbell.flush(Path(bell), timeout=60)
    return owner, psutil.Process(int(pid)), Path(folder)


@pytest.fixture
def adopting() -> Iterator[None]:
    """Who loses its parent becomes this process's child: the kernel continues one that was stopped when it is alone."""
    adopt = functools.partial(ctypes.CDLL(None).prctl, orphans._PR_SET_CHILD_SUBREAPER)
    adopt(1, 0, 0, 0)
    yield
    adopt(0, 0, 0, 0)


@pytest.mark.usefixtures("adopting")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_what_a_killed_owner_has_left_is_not_swept_and_waited_for_while_its_uploader_is_at_it(tmp_path: Path) -> None:
    owner, uploader, folder = owned_uploader(tmp_path)
    waited = list[bool]()
    # Of a session of its own the kernel might take as much care as of the training's, however idle it is within.
    assert os.getsid(uploader.pid) == os.getsid(0)
    assert os.getpgid(uploader.pid) == uploader.pid
    uploader.suspend()
    with pytest.raises(BusyError, match="being run"), only_run(str(tmp_path), lambda: waited.append(True)):
        pass
    owner.kill()
    owner.wait()
    with open_node():  # the next run, which looks for what others have left
        assert folder.exists()

    def waiting() -> None:
        waited.append(uploader.is_running())
        uploader.resume()

    with only_run(str(tmp_path), waiting):
        assert waited == [True]
        assert not folder.exists()
    os.waitpid(uploader.pid, 0)


def test_an_uploader_that_stands_still_when_its_owner_is_killed_goes_on_and_ends_by_itself(tmp_path: Path) -> None:
    owner, uploader, folder = owned_uploader(tmp_path)
    store = open_store(str(tmp_path / "store"))
    attempts.claim(store, None, 1, after=0)
    uploader.suspend()
    while uploader.status() != psutil.STATUS_STOPPED:  # a signal is no answer
        time.sleep(0.01)
    Tickets(folder / "tickets").leave(ticket(store, tmp_path / "staged", step=10))
    owner.kill()
    owner.wait()
    uploader.wait(60)
    assert catalogue.committed(catalogue.list_checkpoints(store)) == [CheckpointId(10, 1)]


def test_receipts_do_not_pile_up(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "tickets")
    for step in range(100):
        tickets.give_receipt(CheckpointId(step, 1), Receipt("Committed"))
    assert len(list((tmp_path / "tickets").iterdir())) == 64
    assert tickets.receipt(CheckpointId(99, 1)) is not None
