"""One object store for every place that a run can be kept: S3, GCS, Azure, or a folder.

obstore does the work; this module adds what a training job needs on top: explicit retries and deadlines,
three outcomes a caller can tell apart (there, not there, storage broken), and messages with the fix.
"""

import asyncio
import collections
import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from trainyard import errors
from trainyard.protocol import foreign
from trainyard.spec.urls import check_server, shown
from trainyard.storage import messages
from trainyard.storage.background import event_loop

T = TypeVar("T")

CHUNK_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 4
_BACKOFF = {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15), "base": 2}
_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(seconds=120), "backoff": _BACKOFF}
_PATIENT_RETRIES = {"max_retries": 1000, "retry_timeout": timedelta(minutes=5), "backoff": _BACKOFF}
_DEADLINES = {"connect_timeout": "10 seconds", "timeout": "120 seconds"}
"""Of each request, which moves CHUNK_BYTES at most: one that hangs longer is made again."""
_SERVER_KEYS = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
"""How obstore calls the URL of a server."""
_TIMES_AGAIN = 5
"""How often a request is made again that was never sent."""


@dataclass(frozen=True)
class Entry:
    """An object: its path below the store's root, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Store:
    """A folder of objects. Paths are relative, with `/`."""

    uri: str
    scheme: str
    backend: ObjectStore
    backends: tuple[ObjectStore, ObjectStore]
    """One that fails in seconds when the storage is away, and one that waits out five minutes."""

    def patient(self) -> "Store":
        """The same, for a run under way: it waits out an outage."""
        return replace(self, backend=self.backends[1])

    def impatient(self) -> "Store":
        """The same, for a first look, or a last one: it fails soon."""
        return replace(self, backend=self.backends[0])

    def put(self, path: str, data: bytes) -> None:
        """Write an object whole: a reader sees the old one or the new one."""
        self._ask("write", path, lambda: self._put(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only if none is there; False if there was one. Atomic among racing callers."""
        try:
            self._ask("write", path, lambda: self._put(path, data, mode="create"))
        except AlreadyExistsError:
            return False
        return True

    def put_file(self, path: str, file: Path, durable: bool = True) -> None:
        """Upload a file, in parts when it is large; a reader never sees a part of it.

        What is not `durable` (a log, which is written anew) may be lost with the power where the store is a folder.
        Raises errors.NotFoundError when the file is not there.
        """
        if not file.exists():
            raise errors.NotFoundError(f"{file}: no such file")
        parts: Any = {"chunk_size": CHUNK_BYTES, "max_concurrency": _PARTS_AT_ONCE}
        self._ask("write", path, lambda: self._put(path, file, durable, **parts))

    def append(self, path: str, data: bytes, durable: bool = True) -> None:
        """Append to a file, where the store is a folder: object stores cannot. Raises errors.StorageError."""
        root = self.local_path()
        if root is None:
            raise errors.StorageError(f"{self.url(path)}: an object store cannot append")
        file = root / path

        def write() -> None:
            with file.open("ab") as stream:
                stream.write(data)
            if durable:
                _sync_file(file, root)

        self._ask("write", path, write)

    def put_chunks(self, path: str, chunks: Iterator[memoryview], chunk_bytes: int, at_once: int) -> None:
        """Upload what comes in chunks, in parts; no reader sees a part of it.

        So many parts are under way, and in memory, at once.
        """
        parts: Any = {"chunk_size": chunk_bytes, "max_concurrency": at_once}
        self._ask("write", path, lambda: self._put(path, chunks, **parts), again=0)

    def get(self, path: str) -> bytes:
        """The bytes of an object. Raises errors.NotFoundError if there is none."""
        return self._ask("read", path, lambda: bytes(obstore.get(self.backend, path).bytes()))

    def stream(self, path: str, expected: int, at_once: int = _PARTS_AT_ONCE) -> Iterator[bytes | memoryview]:
        """The bytes of an object in order, in chunks of CHUNK_BYTES, without holding it whole.

        One that is expected to be large is fetched in parts beside each other, so many ahead of the reader: one
        connection is seldom as fast as the network.
        """
        if expected <= CHUNK_BYTES:
            yield self.get(path)
            return
        starts = iter(range(0, self.size(path), CHUNK_BYTES))
        with event_loop() as loop:
            ahead = collections.deque(self._ahead(loop, path, at) for at in islice(starts, at_once))
            while ahead:
                chunk = self._ask("read", path, ahead.popleft())
                ahead.extend(self._ahead(loop, path, at) for at in islice(starts, 1))
                yield chunk

    def _ahead(self, loop: asyncio.AbstractEventLoop, path: str, start: int) -> Callable[[], memoryview]:
        """Ask for a part in the background. Returns what waits for it; called again, it asks again."""

        def ask() -> Future[memoryview]:
            return asyncio.run_coroutine_threadsafe(self._part(path, start), loop)

        asked = [ask()]
        return lambda: (asked.pop() if asked else ask()).result()

    async def _part(self, path: str, start: int) -> memoryview:
        part: Any = {"start": start, "length": CHUNK_BYTES}
        # Not copied into bytes: that costs as much as half of the digest.
        return memoryview(await obstore.get_range_async(self.backend, path, **part))

    def size(self, path: str) -> int:
        """Bytes of an object. Raises errors.NotFoundError if there is none."""
        return self._ask("read", path, lambda: int(obstore.head(self.backend, path)["size"]))

    def exists(self, path: str) -> bool:
        """Whether there is an object at the path."""
        try:
            self.size(path)
        except errors.NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> list[Entry]:
        """Every object below a prefix, in the order of their paths."""
        batches = self._ask("list", prefix, lambda: list(obstore.list(self.backend, prefix or None)))
        found = [Entry(meta["path"], meta["size"]) for batch in batches for meta in batch]
        return sorted(found, key=lambda entry: entry.path)

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; one that is already gone is no error."""
        for path in paths:
            try:
                self._ask("delete", path, functools.partial(obstore.delete, self.backend, path))
            except errors.NotFoundError:
                continue

    def local_path(self, path: str = "") -> Path | None:
        """The path on this machine's disk, or None when the store is not a folder."""
        folder = _folder(self.uri)
        return folder / path if folder is not None else None

    def url(self, path: str = "") -> str:
        """What a person types to get there: a path for folders, a URI for the rest."""
        local = self.local_path(path)
        return str(local) if local is not None else f"{self.uri}/{path}".rstrip("/")

    def check_writable(self) -> None:
        """Write, read and delete a probe, so that a storage that cannot be written is found before training.

        Raises errors.StorageError that says what to mend.
        """
        probe = f".trainyard-probe-{os.getpid()}"
        self.put(probe, b"trainyard")
        if self.get(probe) != b"trainyard":
            raise errors.StorageError(f"{self.url(probe)}: what was read is not what was written")
        self.delete([probe])

    def _put(self, path: str, data: Any, durable: bool = True, **options: Any) -> None:
        obstore.put(self.backend, path, data, **options)
        root = self.local_path()  # an object store has what it was sent on its disks when it answers
        if durable and root is not None:
            _sync_file(root / path, root)

    def _ask(self, verb: str, path: str, request: Callable[[], T], again: int = _TIMES_AGAIN) -> T:
        """Make a request. Turns obstore's errors into ours, with where and the fix; AlreadyExistsError stays."""
        try:
            return request()
        except AlreadyExistsError:
            raise
        except (BaseError, OSError) as error:
            if again and foreign.is_never_sent(str(error)):
                return self._ask(verb, path, request, again - 1)
            raise self._error(verb, path, error) from error

    def _error(self, verb: str, path: str, error: BaseException) -> errors.TrainyardError:
        where = self.url(path)
        failure = messages.failure(self.scheme, urlsplit(self.uri).netloc, error)
        # S3 servers and proxies answer "not found" to a write or a listing, too, when the parts of an upload are lost.
        if failure.kind == "Missing" and verb not in ("write", "list"):
            return errors.NotFoundError(f"{where}: {failure.what}")
        if failure.kind == "Missing":
            failure = replace(failure, what=failure.words, fix=messages.fix(self.scheme), words="")
        kind = errors.StorageFullError if failure.kind == "Full" else errors.StorageError
        return kind(f"cannot {verb} {where}: {failure.sentence}")


def open_store(uri: str, endpoint: str | None = None, region: str | None = None, must_exist: bool = False) -> Store:
    """The store of a URI (s3://, gs://, az://, file://) or of a local path.

    Makes a folder that does not exist, unless `must_exist` is set, for callers that only read.

    A folder's links are followed, so that two names of one folder are one store.

    Credentials come from the environment (AWS_*, GOOGLE_*, AZURE_*) or from workload identity. Nothing is
    contacted yet. Raises errors.StorageError for a URI that cannot be understood or a folder that cannot be made, and
    errors.NotFoundError for a folder that must exist and does not.
    """
    folder = _folder(uri)
    if folder is not None:
        root = folder.expanduser().resolve()
        if must_exist and not root.is_dir():
            raise errors.NotFoundError(f"{root}: there is no such folder on this machine")
        try:
            missing = [each for each in (root, *root.parents) if not each.exists()]
            root.mkdir(parents=True, exist_ok=True)
            for each in missing:
                _sync_folder(each.parent)
            backend = LocalStore(str(root))
            return Store(root.as_uri(), "file", backend, (backend, backend))
        except OSError as error:
            raise errors.StorageError(f"cannot write {root}: {error.strerror}. Fix: {messages.fix('file')}") from error
    parts = _split(uri)
    if parts.scheme not in ("s3", "gs", "az") or not parts.netloc:
        given = shown(uri)
        raise errors.StorageError(f"{given}: not a storage URI. Write s3://bucket/prefix, gs://…, az://…, or a path")
    prefix = parts.path.strip("/") or None
    try:
        place = (parts.scheme, parts.netloc, prefix, endpoint, region)
        soon, late = (_remote(*place, retries) for retries in (_RETRIES, _PATIENT_RETRIES))
    except (BaseError, ValueError) as error:
        failure = messages.failure(parts.scheme, parts.netloc, error)
        raise errors.StorageError(f"{uri}: {failure.sentence}") from error
    return Store(uri.rstrip("/"), parts.scheme, soon, (soon, late))


def _folder(uri: str) -> Path | None:
    """The folder of a local path or a file:// URI (RFC 8089); None for any other URI."""
    if "://" not in uri:
        return Path(uri)
    parts = _split(uri)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise errors.StorageError(
            f"{uri}: names the host {parts.netloc!r}. Write file:///absolute/path, or a plain path"
        )
    return Path(unquote(parts.path))


def _sync_file(file: Path, root: Path) -> None:
    """Return when a file below a root, and its name, outlive a loss of power; or when it is removed again."""
    with contextlib.suppress(FileNotFoundError):
        _sync(file)
        for folder in file.parents:
            _sync_folder(folder)
            if folder == root:
                return


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        # Who may write there need not be able to list it, and not every file system syncs folders.
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.EBADF):
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise errors.StorageError(f"{uri}: {error}. Write s3://bucket/prefix, gs://…, az://…, or a path") from error


def _remote(
    scheme: str, bucket: str, prefix: str | None, endpoint: str | None, region: str | None, retries: Any
) -> ObjectStore:
    client: Any = dict(_DEADLINES)
    config: Any = {}
    server = _server(scheme, endpoint)
    if server is not None:
        config[_SERVER_KEYS[scheme]] = server
        client["allow_http"] = server.startswith("http://")
    options: Any = {"prefix": prefix, "client_options": client, "retry_config": retries}
    if scheme == "gs":
        return GCSStore(bucket, config=config, **options)
    if scheme == "az":
        return AzureStore(bucket, config=config, **options)
    config["region"] = region or os.environ.get("AWS_REGION") or "us-east-1"
    # Every file has a digest of ours; a second SHA-256 over each part, for the signature, would cost as much again.
    config["unsigned_payload"] = True
    return S3Store(bucket, config=config, **options)


def _server(scheme: str, endpoint: str | None) -> str | None:
    """The URL of another server than the provider's, if one is named. Raises errors.StorageError for what is none."""
    variable = messages.SERVER_VARIABLES[scheme]
    url = endpoint or os.environ.get(variable)
    try:
        return check_server(url) if url else None
    except ValueError as error:
        raise errors.StorageError(f"spec.storage.endpoint, or {variable}: {error}") from None
