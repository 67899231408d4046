"""Uploaders, as processes of their own, and what happens to the storage and to them while they upload."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.proxy import Fault, FaultyProxy
from tests.bed.s3 import S3Server, s3_server, server_ports
from tests.conftest import fill
from tests.costs import COSTS, Cost
from tests.store.tickets import ticket
from trainyard.checkpoint import attempts, catalogue, doorbell
from trainyard.checkpoint.staging import Receipt, Run, Tickets
from trainyard.launch.listener import Listener
from trainyard.launch.node import Node
from trainyard.launch.uploads import Uploads
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store, open_store

SIZE = 20_000_000
"""Bytes: three parts."""
SLOW = Fault(bandwidth=2_000_000)
FAULTS = {
    "503 bursts": Fault(status=503),
    "500 bursts": Fault(status=500),
    "credentials refused (403)": Fault(status=403),
    "every request refused (400)": Fault(status=400),
    "nothing found, by a proxy (404)": Fault(status=404),
    "connections reset in mid-part": Fault(reset=True),
    "200 with an error in complete-multipart": Fault(fail_complete=True),
}


@dataclass
class Place:
    """A node with its uploader, behind a faulty proxy of its own."""

    node: Node
    tickets: Tickets
    uploads: Uploads
    listener: Listener
    proxy: FaultyProxy
    store: Store
    folder: Path

    def leave(self, step: int = 10, attempt: int = 1, rank: int = 0, nodes: int = 1) -> None:
        """Stage a checkpoint, or the part of it that the rank of one of several nodes has."""
        made = ticket(
            self.store, self.folder, rank, step=step, attempt=attempt, world=nodes, node=rank, size=SIZE,
            endpoint=self.proxy.endpoint,
        )  # fmt: skip
        self.tickets.leave(made)
        doorbell.ring(self.node.bell)

    def sending(self) -> None:
        """Return when an upload is under way."""
        before, until = self.proxy.requests, time.monotonic() + 30
        while self.proxy.requests < before + 2:
            assert time.monotonic() < until
            time.sleep(0.02)

    def noticed(self, seconds: float) -> float:
        """Seconds until the uploader says that something is wrong."""
        start = time.monotonic()
        while (left := start + seconds - time.monotonic()) > 0:
            ready, _, _ = select.select([self.listener], [], [], left)
            event = self.listener.receive() if ready else None
            if event is not None and event["event"] == "note":
                return time.monotonic() - start
        pytest.fail(f"nothing was said for {seconds} s")

    def settled(self, step: int = 10, attempt: int = 1, last: bool = False) -> Receipt:
        """Wait for what becomes of a checkpoint."""
        return doorbell.settled(self.node.bell, self.tickets, CheckpointId(step, attempt), last)

    def live_through(self, name: str, fault: Fault, seconds: float) -> Cost:
        """A fault in mid-upload: it is noticed within so many seconds, and after it the checkpoint is committed."""
        attempts.claim(self.store, None, 1, after=0)
        with self.proxy.fault(SLOW):
            self.leave()
            self.sending()
        with self.proxy.fault(fault):
            noticed = self.noticed(seconds)
            assert self.tickets.receipt(CheckpointId(10, 1)) is None
        mended = time.monotonic()
        assert self.settled().state == "Committed"
        return Cost(name, noticed, time.monotonic() - mended)


Places = Callable[..., Place]


@pytest.fixture
def places(s3_env: S3Server, tmp_path: Path) -> Iterator[Places]:
    """Makes nodes of one run: the same store, each by its own way."""
    with contextlib.ExitStack() as stack:

        def make(name: str, run: str | None = None, endpoint: str = s3_env.endpoint) -> Place:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            node, proxy = Node(folder, folder), FaultyProxy(endpoint)
            stack.callback(proxy.close)
            listener, uploads = Listener(node), Uploads(node)
            stack.callback(uploads.close)
            store = open_store(f"s3://bucket/{tmp_path.name}-{run or name}", proxy.endpoint)
            return Place(node, Tickets(node.tickets), uploads, listener, proxy, store, folder / "staged")

        yield make


def test_a_checkpoint_waits_for_the_storage_to_be_mended(places: Places, s3_env: S3Server) -> None:
    made = {fault: places(f"fault-{number}") for number, fault in enumerate(FAULTS)}
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        COSTS.extend(pool.map(lambda fault: made[fault].live_through(fault, FAULTS[fault], 60), FAULTS))
    for place in made.values():
        manifest = catalogue.read_manifest(open_store(place.store.uri, s3_env.endpoint), CheckpointId(10, 1))
        assert manifest.size == SIZE


def test_what_an_outage_holds_up_is_given_up_when_the_run_ends(places: Places) -> None:
    place = places("ends")
    attempts.claim(place.store, None, 1, after=0)
    with place.proxy.fault(FAULTS["credentials refused (403)"]):
        place.leave(10)
        place.leave(20)
        place.noticed(60)
        assert place.settled(10, last=True).state == "Failed"
        assert place.settled(20, last=True).state == "Failed"


def test_what_a_run_has_given_up_in_an_outage_is_sent_before_the_next_attempt(places: Places) -> None:
    place = places("again")
    attempts.claim(place.store, None, 1, after=0)
    with place.proxy.fault(FAULTS["credentials refused (403)"]):
        place.leave()
        assert place.settled(last=True).state == "Failed"
    place.tickets.try_again()
    place.uploads.flush()
    assert place.settled().state == "Committed"


def test_a_node_whose_disk_is_full_tells_it_and_commits_when_there_is_room(places: Places, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    place = places(small_disk.name)
    attempts.claim(place.store, None, 1, after=0)
    with place.proxy.fault(SLOW):
        place.leave()
        place.sending()
        filled = fill(small_disk)
    noticed, uploader = place.noticed(60), place.uploads.process.pid
    failed = place.settled(last=True)
    assert failed.state == "Failed", "a run that ends does not wait for ever"
    assert "No space left" in failed.message
    begun = time.monotonic()
    place.uploads.flush()
    assert time.monotonic() - begun < 60, "nor does the next attempt"
    filled.unlink()
    freed = time.monotonic()
    assert place.settled().state == "Committed"
    COSTS.append(Cost("the disk of a node is full", noticed, time.monotonic() - freed))
    assert place.uploads.process.pid == uploader


def test_to_keep_the_curves_gives_up_no_part_of_another_node(places: Places) -> None:
    first, second = places("first", "both"), places("second", "both")
    attempts.claim(first.store, None, 2, after=0)
    first.leave(nodes=2)
    rows = first.folder / "metrics.jsonl"
    rows.write_text("{}\n")
    doorbell.keep(first.node.bell, doorbell.Metrics(rows, Run(first.store.uri, first.proxy.endpoint, None), 1))
    assert first.store.exists("metrics.jsonl")
    assert first.tickets.receipt(CheckpointId(10, 1)) is None
    second.leave(rank=1, nodes=2)
    assert first.settled().state == "Committed"


def test_a_narrow_way_is_waited_for(places: Places) -> None:
    place = places("narrow")
    attempts.claim(place.store, None, 1, after=0)
    with place.proxy.fault(Fault(bandwidth=1_000_000)):
        start = time.monotonic()
        place.leave()
        assert place.settled().state == "Committed"
    COSTS.append(Cost("1 MB/s for each connection", None, time.monotonic() - start))


@pytest.mark.slow
def test_a_storage_that_hangs_is_told_and_waited_for(places: Places) -> None:
    COSTS.append(places("hang").live_through("storage hangs", Fault(hang=True), 400))


@pytest.mark.slow
def test_a_storage_server_that_is_killed_in_mid_upload_and_comes_back_gets_the_checkpoint(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ports = tmp_path / "server", server_ports()
    folder.mkdir()
    with s3_server(folder, ports) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        place = places("server-killed", endpoint=server.endpoint)
        attempts.claim(place.store, None, 1, after=0)
        place.leave(step=5)
        assert place.settled(5).state == "Committed"
        with place.proxy.fault(SLOW):
            place.leave()
            place.sending()
        killed = time.monotonic()
    place.noticed(60)
    noticed = time.monotonic() - killed
    with s3_server(folder, ports):
        mended = time.monotonic()
        assert place.settled().state == "Committed"
        COSTS.append(Cost("storage server killed in mid-upload", noticed, time.monotonic() - mended))
        for step in (5, 10):
            assert catalogue.read_manifest(place.store, CheckpointId(step, 1)).size == SIZE


def test_an_uploader_that_is_killed_in_mid_upload_is_started_again_and_finishes(places: Places) -> None:
    place = places("killed")
    attempts.claim(place.store, None, 1, after=0)
    with place.proxy.fault(SLOW):
        place.leave()
        place.sending()
        first = place.uploads.process.pid
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
    assert place.settled().state == "Committed"
    COSTS.append(Cost("uploader killed in mid-upload", None, time.monotonic() - killed))
    assert place.uploads.process.pid != first


def test_one_that_was_frozen_and_commits_later_changes_nothing_of_what_the_next_attempt_goes_on_from(
    places: Places,
) -> None:
    frozen, other = places("frozen", "run"), places("other", "run")
    attempts.claim(frozen.store, None, 1, after=0)
    frozen.leave(step=10)
    assert frozen.settled(10).state == "Committed"
    with frozen.proxy.fault(SLOW):
        frozen.leave(step=30)
        frozen.sending()
        frozen.uploads.process.send_signal(signal.SIGSTOP)
        attempts.claim(other.store, CheckpointId(10, 1), 1, after=1)
        other.leave(step=20, attempt=2)
        assert other.settled(20, 2).state == "Committed"
        woken = time.monotonic()
        frozen.uploads.process.send_signal(signal.SIGCONT)
        assert frozen.settled(30).state in ("Committed", "Abandoned")
    COSTS.append(Cost("a frozen uploader wakes up in a later attempt", None, time.monotonic() - woken))
    found = catalogue.committed(catalogue.list_checkpoints(other.store))
    assert found[0] == CheckpointId(20, 2), "the newest of the lineage, though 30 is a later step"
    assert CheckpointId(30, 1) not in found
    assert catalogue.read_manifest(other.store, CheckpointId(10, 1)).size == SIZE, "its lineage is still there"
    other.leave(step=40, attempt=2)
    assert other.settled(40, 2).state == "Committed"
    assert catalogue.committed(catalogue.list_checkpoints(other.store))[0] == CheckpointId(40, 2)
