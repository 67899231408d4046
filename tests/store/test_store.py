"""The store on a folder and on a real S3 server, and what a broken one says."""

import errno
import os
import re
import socket
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import ObjectStore

from tests.bed.proxy import Fault, FaultyProxy
from tests.bed.s3 import S3Server
from trainyard.errors import NotFoundError, StorageError
from trainyard.storage.store import CHUNK_BYTES, Store, open_store

MakeStore = Callable[[], Store]


@pytest.fixture(params=["file", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    if request.param == "file":
        return lambda: open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3_env")
    return lambda: open_store(f"s3://bucket/{tmp_path.name}", server.endpoint)


def test_what_is_written_is_read(make: MakeStore, tmp_path: Path) -> None:
    store = make()
    big = os.urandom(20 * 1024 * 1024 + 7)
    (tmp_path / "big").write_bytes(big)
    store.put("a/small", b"x")
    store.put_file("a/big", tmp_path / "big")
    assert store.get("a/small") == b"x"
    assert b"".join(store.stream("a/big", len(big))) == big
    assert [(entry.path, entry.size) for entry in store.list("a")] == [("a/big", len(big)), ("a/small", 1)]
    assert store.exists("a/small")
    assert not store.exists("a/none")
    store.delete(["a/small", "a/none"])
    assert [entry.path for entry in store.list()] == ["a/big"]
    with pytest.raises(NotFoundError):
        store.get("a/small")


def test_of_racing_creates_one_wins(make: MakeStore) -> None:
    stores = [make() for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda numbered: numbered[1].create("claim", str(numbered[0]).encode()), enumerate(stores)))
    assert won.count(True) == 1
    assert stores[0].get("claim") == str(won.index(True)).encode()


def test_a_store_that_can_be_written_leaves_no_probe(make: MakeStore) -> None:
    store = make()
    store.check_writable()
    assert store.list() == []


def test_an_outage_fails_a_first_look_and_is_waited_out_by_a_run(s3_env: S3Server) -> None:
    proxy = FaultyProxy(s3_env.endpoint)
    store = open_store("s3://bucket/outage", proxy.endpoint)
    try:
        with ThreadPoolExecutor(1) as pool:
            with proxy.fault(Fault(reset=True)):
                written = pool.submit(store.patient().put, "file", b"x")
                with pytest.raises(StorageError):
                    store.put("other", b"x")
            written.result(timeout=60)
        assert store.get("file") == b"x"
    finally:
        proxy.close()


def test_a_connection_that_is_reset_before_it_is_used_is_made_again(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens to one in a thousand: a reset at exactly that moment cannot be had."""
    store, put, failed = open_store("s3://bucket/unused", s3_env.endpoint), obstore.put, list[str]()

    def fails_once(backend: ObjectStore, path: str, data: bytes, **given: Any) -> Any:
        if path not in failed:
            failed.append(path)
            raise GenericError('Generic S3 error\n\nDebug source: Canceled, "connection was not ready"')
        return put(backend, path, data, **given)

    monkeypatch.setattr(obstore, "put", fails_once)
    store.put("file", b"x")
    assert store.create("claim", b"x")
    assert not store.create("claim", b"y")
    assert failed == ["file", "claim"]
    assert store.get("file") == b"x"


def test_a_part_whose_connection_is_reset_before_it_is_used_is_asked_for_again(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, get_range, failed = open_store("s3://bucket/unused-part", s3_env.endpoint), obstore.get_range_async, []
    big = os.urandom(2 * CHUNK_BYTES + 7)
    store.put("big", big)

    async def fails_once(backend: ObjectStore, path: str, *, start: int, length: int) -> Any:
        if start not in failed:
            failed.append(start)
            raise GenericError('Generic S3 error\n\nDebug source: Canceled, "connection was not ready"')
        return await get_range(backend, path, start=start, length=length)

    monkeypatch.setattr(obstore, "get_range_async", fails_once)
    assert b"".join(store.stream("big", len(big))) == big
    assert sorted(failed) == [0, CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_who_stops_reading_waits_for_no_part_and_leaves_no_thread(s3_env: S3Server) -> None:
    size, proxy = 4 * CHUNK_BYTES, FaultyProxy(s3_env.endpoint)
    open_store("s3://bucket/stops", s3_env.endpoint).put("big", os.urandom(size))
    try:
        chunks = open_store("s3://bucket/stops", proxy.endpoint).stream("big", size, at_once=1)
        with proxy.fault(Fault(bandwidth=2 * CHUNK_BYTES)):  # the next part is half a second on its way
            next(chunks)
            with proxy.fault(Fault(hang=True)):
                chunks.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "trainyard-requests"]
    finally:
        proxy.close()


def test_wrong_credentials_are_told_without_the_secret(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID") as caught:
        open_store("s3://bucket/x", s3_env.endpoint).check_writable()
    assert "wrong-secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_told(s3_env: S3Server) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(StorageError, match=r"s3://bucket/x.*Fix: check that this machine reaches the server"):
            open_store("s3://bucket/x", endpoint).check_writable()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("127.0.0.1:8333", "127.0.0.1:8333 is no URL of a server"),
        ("foo", "write http://host:port"),
        ("http://user:topsecret@host", "AWS_ENDPOINT_URL: holds a name or a password"),
    ],
    ids=["no scheme", "no host", "a password"],
)
def test_an_endpoint_that_is_none_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, words: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match=re.escape(words)) as caught:
        open_store("s3://bucket/x")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3:///prefix", "ftp://host/x", "http://host"], ids=repr)
def test_a_uri_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(StorageError, match="Write s3://bucket/prefix"):
        open_store(uri)


@pytest.mark.skipif(os.getuid() != 0, reason="needs a folder that root cannot write either: /proc")
def test_a_folder_that_cannot_be_made_is_told() -> None:
    with pytest.raises(StorageError, match="check that the folder exists"):
        open_store("/proc/none/store")


def test_what_is_written_to_a_folder_is_on_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a commit that was told would not outlive a loss of power."""
    store, synced, sync = open_store(str(tmp_path)), list[int](), os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    (tmp_path / "source").write_bytes(b"x" * 100)
    store.put("a/b/c/put", b"x")
    store.create("a/b/c/create", b"x")
    store.put_file("a/b/c/file", tmp_path / "source")
    store.put_chunks("a/b/c/chunks", iter([memoryview(b"x" * 100)]), 100, 1)
    folder, names = tmp_path / "a/b/c", ("put", "create", "file", "chunks")
    above = (folder, folder.parent, folder.parent.parent, tmp_path)
    assert synced == [each.stat().st_ino for name in names for each in (folder / name, *above)]
    synced.clear()
    open_store(str(tmp_path / "new/store"))
    assert synced == [each.stat().st_ino for each in (tmp_path / "new", tmp_path)]

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match="cannot write"):
        store.put("a/put", b"y")

    def on_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", on_files_only)
    store.put("a/put", b"z")


def test_a_folder_is_the_same_by_every_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b ü%20#?"
    store = open_store(str(folder))
    store.put("file", b"x")
    (tmp_path / "link").symlink_to(folder)
    for name in (store.uri, str(tmp_path / "link")):
        assert open_store(name).uri == store.uri
        assert open_store(name).get("file") == b"x"
    assert store.url("file") == str(folder.resolve() / "file")


@pytest.mark.parametrize("uri", ["file://runs", "http://[bad", "ftp://host/x"])
def test_a_uri_that_means_no_storage_is_refused_with_the_right_spelling(uri: str) -> None:
    with pytest.raises(StorageError, match="Write"):
        open_store(uri)
