"""Growing files in a folder and on a real S3 server: what is sent, and what is read."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bed.s3 import S3Server
from trainyard.cluster import logs
from trainyard.errors import NotFoundError
from trainyard.launch.logs import LogUpload
from trainyard.storage import layout, segments
from trainyard.storage.segments import GrowingFile
from trainyard.storage.store import Store, open_store

LOG = layout.log_path(3, 1)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3_env")
    return open_store(f"s3://bucket/{tmp_path.name}", server.endpoint)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Bytes of each write, as they go to the storage's library."""
    sizes: list[int] = []
    put: Callable[..., None] = Store._put

    def counted(self: Store, path: str, data: bytes | Path, *rest: object, **options: object) -> None:
        sizes.append(data.stat().st_size if isinstance(data, Path) else len(data))
        put(self, path, data, *rest, **options)

    monkeypatch.setattr(Store, "_put", counted)
    return sizes


def grow(file: Path, size: int) -> None:
    with file.open("ab") as stream:
        stream.write(random.Random(size).randbytes(size))


def test_bytes_sent_grow_with_the_file(store: Store, tmp_path: Path, sent: list[int]) -> None:
    file, copied = tmp_path / "rank-1.log", GrowingFile(LOG)
    for _ in range(300):
        grow(file, 1000)
        copied.copy(store, file)
    size = file.stat().st_size
    assert segments.read(store, LOG) == file.read_bytes()
    assert sum(sent) <= 6 * size, "copied whole each time it would be 150 times"
    assert len(store.list("logs")) <= 10


def test_large_segments_are_never_sent_again(
    store: Store, tmp_path: Path, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 10_000)
    file, copied = tmp_path / "rank-1.log", GrowingFile(LOG)
    grow(file, 35_000)
    for _ in range(50):
        copied.copy(store, file)
        grow(file, 3_000)
    copied.copy(store, file)
    assert segments.read(store, LOG) == file.read_bytes()
    assert sum(sent) <= 3 * file.stat().st_size
    if store.local_path() is None:
        assert max(entry.size for entry in store.list("logs")) <= 10_000


def test_next_writer_replaces_what_is_there(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    old = GrowingFile(layout.METRICS)
    for _ in range(5):
        grow(first, 1001)
        old.copy(store, first)
    second.write_bytes(b"of the next attempt\n")
    GrowingFile(layout.METRICS).copy(store, second)
    assert segments.read(store, layout.METRICS) == second.read_bytes()
    assert [entry.path for entry in store.list()] == [layout.METRICS]
    segments.clear(store, layout.METRICS)
    assert segments.read(store, layout.METRICS) == b""


def test_reader_between_merge_and_delete_reads_once(s3_env: S3Server, tmp_path: Path) -> None:
    store = open_store(f"s3://bucket/{tmp_path.name}", s3_env.endpoint)
    store.put("log.log", b"012345")
    store.put("log/000000000003.log", b"345")
    store.put("log/000000000006.log", b"6789")
    assert segments.read(store, "log.log") == b"0123456789"


def test_log_that_is_stored_whole_is_read(store: Store) -> None:
    store.put("logs/worker-0/20260101T000000.log", b"of an old run\n")
    store.put("logs/worker-10/20260101T000000.log", b"of another worker\n")
    assert logs.stored(store, 0) == "of an old run\n"
    with pytest.raises(NotFoundError):
        logs.stored(store, 1)


def test_logs_of_all_pods_come_in_order(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 10)
    for pod, text in (("20260101T000001", "first pod\n" * 5), ("20260101T000002", "second pod\n" * 5)):
        file = tmp_path / pod
        file.write_text(text)
        with LogUpload(lambda: store, layout.pod_log_path(0, pod), file):
            pass
    assert logs.stored(store, 0) == "first pod\n" * 5 + "second pod\n" * 5


def test_damaged_copy_in_a_folder_is_replaced(tmp_path: Path) -> None:
    store, file, copied = open_store(str(tmp_path / "store")), tmp_path / "log", GrowingFile(LOG)
    grow(file, 100)
    copied.copy(store, file)
    (tmp_path / "store" / LOG).write_bytes(b"cut")
    grow(file, 100)
    copied.copy(store, file)
    assert segments.read(store, LOG) == file.read_bytes()
