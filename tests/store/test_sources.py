"""A model by URI: fetched once a machine, from a real S3 server."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.bed.s3 import S3Server
from trainyard.spec.model import Storage
from trainyard.storage.store import Store, open_store
from trainyard.train import sources

FILES = {"model.safetensors": os.urandom(3_000_000), "config.json": b"{}"}
RANKS = 8


@pytest.fixture
def model(tmp_path: Path, s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Storage]:
    """A model in a bucket, and a cache that is empty."""
    uri = f"s3://bucket/{tmp_path.name}"
    for name, data in FILES.items():
        open_store(uri, s3_env.endpoint).put(f"model/{name}", data)
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    return f"{uri}/model", Storage(uri=uri, endpoint=s3_env.endpoint)


def fetch(source: str, storage: Storage, fetched: Path, write: Connection, slow: bool = False) -> None:
    """In a process of its own: what a rank does. Each file that it fetches is a line of `fetched`."""
    stream = Store.stream

    def counted(self: Store, path: str, size: int) -> Iterator[bytes]:
        with fetched.open("a") as lines:
            lines.write(f"{path}\n")
        write.send("begun")
        if slow:
            time.sleep(600)
        return stream(self, path, size)

    Store.stream = counted  # type: ignore[method-assign]
    write.send(sources.local_folder(source, storage))


def begun(
    source: str, storage: Storage, fetched: Path, slow: bool = False
) -> tuple[multiprocessing.Process, Connection]:
    spawn = multiprocessing.get_context("spawn")
    read, write = spawn.Pipe(duplex=False)
    process = spawn.Process(target=fetch, args=(source, storage, fetched, write, slow))
    process.start()
    return process, read  # type: ignore[return-value]


def folder_of(read: Connection) -> Path:
    while True:
        assert read.poll(120)
        words = read.recv()
        if words != "begun":
            return Path(words)


def test_ranks_of_a_node_fetch_a_model_once(model: tuple[str, Storage], tmp_path: Path) -> None:
    ranks = [begun(*model, tmp_path / "fetched") for _ in range(RANKS)]
    folders = {folder_of(read) for _, read in ranks}
    for process, _ in ranks:
        process.join(60)
        assert process.exitcode == 0
    (folder,) = folders
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
    assert sorted((tmp_path / "fetched").read_text().split()) == sorted(f"model/{name}" for name in FILES)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl"]),
        ("*/*.jsonl", ["b.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "c.jsonl"]),
        ("old/**", ["b.jsonl", "c.jsonl"]),
    ],
)
def test_a_pattern_takes_the_same_files_in_a_bucket_and_here(
    s3_env: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]
) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    uri, here = f"s3://bucket/{tmp_path.name}", tmp_path / "here"
    for name in ("a.jsonl", "old/b.jsonl", "old/older/c.jsonl", ".hidden.jsonl"):
        for store in (open_store(uri, s3_env.endpoint), open_store(str(here))):
            store.put(f"data/{name}", b"{}")
    storage = Storage(uri=uri, endpoint=s3_env.endpoint)
    assert [file.name for file in sources.local_files(f"{uri}/data/{pattern}", storage)] == names
    assert [file.name for file in sources.local_files(f"{here}/data/{pattern}", storage)] == names


def test_rank_that_dies_while_it_fetches_keeps_nobody(model: tuple[str, Storage], tmp_path: Path) -> None:
    first, read = begun(*model, tmp_path / "fetched", slow=True)
    assert read.poll(120)
    assert read.recv() == "begun"
    second, other = begun(*model, tmp_path / "fetched")
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    folder = folder_of(other)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".partial")} == FILES
    for process in (first, second):
        with contextlib.suppress(ValueError):
            process.join(60)
