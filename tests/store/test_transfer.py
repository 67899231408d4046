"""Commit, restore and corruption, on a folder and on a real S3 server."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bed.proxy import Fault, FaultyProxy
from tests.bed.s3 import S3Server
from trainyard.checkpoint import attempts, catalogue
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.retain import Retention
from trainyard.checkpoint.staging import Commit, Run, Ticket, Tickets
from trainyard.checkpoint.transfer import CorruptCheckpointError, chunk_bytes, download, folder_files, upload, verify
from trainyard.checkpoint.uploader import Uploader
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import CHUNK_BYTES, Store, open_store


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3_env")
    return open_store(f"s3://bucket/{tmp_path.name}", server.endpoint)


@pytest.fixture
def committed(store: Store, tmp_path: Path) -> Manifest:
    """A checkpoint of two files, sent off by the real uploader."""
    attempts.claim(store, None, 1, after=0)
    folder = tmp_path / "staged"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"w" * 10_000)
    (folder / "sub" / "optimizer.pt").write_bytes(b"o" * 5_000)
    commit = Commit("ddp", 8, {}, {"loss": 1.0}, Retention(3, 1, None, False))
    endpoint = os.environ.get("AWS_ENDPOINT_URL") if store.scheme == "s3" else None
    run = Run(store.uri, endpoint, None)
    tickets = Tickets(tmp_path / "tickets")
    tickets.leave(Ticket(10, 1, 0, 1, 1, 0, 1, run, tuple(folder_files(folder)), time.time(), commit))
    assert not Uploader(tickets, lambda told: None).work()
    return catalogue.read_manifest(store, CheckpointId(10, 1))


def test_a_committed_checkpoint_comes_back_as_it_was(store: Store, committed: Manifest, tmp_path: Path) -> None:
    verify(store, committed, committed.id.folder)
    download(store, committed, committed.id.folder, tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == b"w" * 10_000
    assert (tmp_path / "back/sub/optimizer.pt").read_bytes() == b"o" * 5_000
    assert committed.size == 15_000
    assert committed.metrics == {"loss": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"w" * 9_999, "9,999 bytes instead of 10,000"),
        (b"w" * 9_999 + b"x", "another SHA-256"),
        (None, "is missing"),
        (b"", "0 bytes"),
    ],
    ids=["truncated", "flipped", "missing", "empty"],
)
def test_a_corrupt_object_is_never_taken(
    store: Store, committed: Manifest, tmp_path: Path, change: bytes | None, message: str
) -> None:
    path = f"{committed.id.folder}/model.safetensors"
    store.delete([path]) if change is None else store.put(path, change)
    with pytest.raises(CorruptCheckpointError, match=message):
        download(store, committed, committed.id.folder, tmp_path / "back")
    assert not [file for file in (tmp_path / "back").rglob("*") if file.name.lstrip(".").startswith("model")]


def test_objects_that_were_swapped_are_never_taken(store: Store, committed: Manifest, tmp_path: Path) -> None:
    names = [f"{committed.id.folder}/{name}" for name in ("model.safetensors", "sub/optimizer.pt")]
    contents = [store.get(name) for name in names]
    for name, content in zip(names, reversed(contents), strict=True):
        store.put(name, content)
    with pytest.raises(CorruptCheckpointError, match=r"5,000 bytes instead of 10,000|10,000 bytes instead of 5,000"):
        download(store, committed, committed.id.folder, tmp_path / "back")
    assert not [file for file in (tmp_path / "back").rglob("*") if file.is_file()]


def test_what_is_sent_in_parts_is_what_was_read_though_parts_are_sent_again(
    s3_env: S3Server, tmp_path: Path, staging: Path
) -> None:
    content = os.urandom(6 * CHUNK_BYTES + 7)
    (staging / "model").write_bytes(content)
    proxy, store = FaultyProxy(s3_env.endpoint), open_store(f"s3://bucket/{tmp_path.name}", s3_env.endpoint)
    through = open_store(store.uri, proxy.endpoint)
    try:
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(upload, through, "sent", folder_files(staging), at_once=2)
            for _ in range(3):
                with proxy.fault(Fault(bandwidth=CHUNK_BYTES)):  # which cuts all connections when it begins and ends
                    before = proxy.requests
                    while proxy.requests < before + 2 and not sent.done():
                        time.sleep(0.01)
            (entry,) = sent.result(timeout=60)
        assert store.get("sent/model") == content
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
    finally:
        proxy.close()


def test_an_object_of_any_size_has_no_more_parts_than_s3_takes() -> None:
    assert chunk_bytes(1) == chunk_bytes(80_000_000_000) == CHUNK_BYTES
    for size in (90_000_000_000, 5_000_000_000_000):
        assert size / chunk_bytes(size) <= 10_000


def test_a_checkpoint_that_was_set_aside_is_not_chosen_and_says_why(store: Store, committed: Manifest) -> None:
    catalogue.set_aside(store, committed.id, "another SHA-256 than committed")
    (found,) = catalogue.list_checkpoints(store)
    assert (found.state, found.reason) == ("SetAside", "another SHA-256 than committed")
    assert catalogue.committed([found]) == []
