"""Files of a checkpoint between this machine and the store, each read once: its digest is made on the way."""

import contextlib
import errno
import hashlib
import io
import math
import mmap
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainyard import errors
from trainyard.checkpoint.manifest import FileEntry, Manifest
from trainyard.checkpoint.staging import StagedFile
from trainyard.plan.machine import MEMORY
from trainyard.storage.disk import room_on
from trainyard.storage.store import CHUNK_BYTES, Store

_OWN = re.compile(r"(?:^|/)(?:rng_state_|loss_|shard_rank_|(?:bf16_)?zero_pp_rank_)(?P<rank>\d+)[._]")
"""Files that one rank alone writes and reads."""
_MOST_PARTS = 10_000
AT_ONCE = 16
"""Chunks of 8 MiB under way, and in memory, at once: parts of large files, or small files of that size together."""
_RESTORING = 3 * AT_ONCE
"""The same while a checkpoint is brought: nothing trains meanwhile, and everybody waits."""
_FILES_A_CHUNK = 4
"""Small files under way in place of a chunk, as far as the bytes allow."""
_PIECE = 64 * 1024
"""Read and digested at once: about 30 microseconds."""
_LOOKS = 2
"""At a file in storage that is not as it was committed, before its checkpoint is set aside for good."""
_MOST_FILES = 64
"""More requests at once would only wait for each other."""


class CorruptCheckpointError(errors.StorageError):
    """What is in storage is not what was committed."""


def folder_files(folder: Path) -> list[StagedFile]:
    """The files below a folder, by their path in it, sorted."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return [StagedFile(str(file.relative_to(folder)), str(file), file.stat().st_size) for file in found]


def upload(store: Store, prefix: str, files: Iterable[StagedFile], at_once: int = AT_ONCE) -> list[FileEntry]:
    """Upload files below a prefix, so many chunks at once. Returns an entry for each, in the order given.

    Raises StorageError, or OSError when a file cannot be read.
    """
    files = list(files)
    budget = _Budget([file.size for file in files], at_once)

    def send(file: StagedFile) -> FileEntry:
        sha256 = hashlib.sha256()
        chunk = chunk_bytes(file.size)
        with budget.taken(file.size), Path(file.source).open("rb", buffering=0) as stream:
            chunks = _digested(stream, file.size, sha256, chunk)
            if file.size <= chunk:  # whole: one request instead of three
                store.put(f"{prefix}/{file.path}", b"".join(chunks))
            else:
                with _own_errors(chunks) as watched:
                    store.put_chunks(f"{prefix}/{file.path}", watched, chunk, budget.parts(file.size))
        return FileEntry(file.path, file.size, sha256.hexdigest())

    with budget.pool() as pool:
        return list(pool.map(send, files))


def verify(store: Store, manifest: Manifest, prefix: str) -> None:
    """Read every file of a checkpoint and compare it with the manifest. Raises CorruptCheckpointError."""
    budget = _Budget([entry.size for entry in manifest.files], _RESTORING)
    with budget.pool() as pool:
        list(pool.map(lambda entry: _receive(store, prefix, entry, Path(os.devnull), budget), manifest.files))


def download(
    store: Store,
    manifest: Manifest,
    prefix: str,
    folder: Path,
    wanted: Iterable[FileEntry] | None = None,
    staged: dict[str, str] | None = None,
) -> None:
    """Bring files of a checkpoint (all, unless some are wanted) into a folder, verified while they stream.

    Files that are there already were verified when they came. `staged` names copies on this node: one whose digest
    matches is taken instead of a download. Raises CorruptCheckpointError, and DiskFullError.
    """
    entries = list(manifest.files if wanted is None else wanted)
    budget = _Budget([entry.size for entry in entries], _RESTORING)

    def bring(entry: FileEntry) -> None:
        target = folder / restored_path(entry.path)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise CorruptCheckpointError(f"{entry.path}: the manifest names a file outside the checkpoint")
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            here = staged.get(entry.path) if staged is not None else None
            if here is None or not _take(Path(here), entry, partial):
                _receive(store, prefix, entry, partial, budget)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    with room_on(folder), budget.pool() as pool:
        list(pool.map(bring, entries))


class _Budget:
    """Bytes of files under way at once, shared out among those of a transfer, which fails as a whole."""

    def __init__(self, sizes: list[int], at_once: int) -> None:
        large = sum(size > CHUNK_BYTES for size in sizes)
        # A chunk's room is left to the small files, of which no checkpoint is without.
        self._parts = max(1, (at_once - 1) // large if large == 1 else at_once // max(1, large))
        self._at_once, self._files = at_once, max(1, len(sizes))
        self._total = self._free = at_once * CHUNK_BYTES
        self._failed: BaseException | None = None
        self._changed = threading.Condition()

    def parts(self, size: int) -> int:
        """Parts of a file of so many bytes under way at once, when all large ones are on the way together."""
        return max(1, min(self._parts, self._total // chunk_bytes(size)))

    def pool(self) -> ThreadPoolExecutor:
        """Threads that move a file each."""
        return ThreadPoolExecutor(min(self._files, _FILES_A_CHUNK * self._at_once, _MOST_FILES))

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Room for what is under way of a file of so many bytes; waits until there is, or another file has failed."""
        need = min(size, self.parts(size) * chunk_bytes(size), self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._free >= need)
            if self._failed is not None:
                raise self._failed
            self._free -= need
        try:
            yield
        except BaseException as error:
            self._failed = self._failed or error
            raise
        finally:
            with self._changed:
                self._free += need
                self._changed.notify_all()


def restored_path(path: str) -> str:
    """The name by which Trainer and DeepSpeed look for a file: `optimizer.pt.safetensors` is their `optimizer.pt`."""
    name = path.removesuffix(".safetensors")
    return name if name.endswith((".pt", ".pth", ".bin")) else path


def needed(manifest: Manifest, ranks: Collection[int]) -> list[FileEntry]:
    """The files of a checkpoint that some of its ranks need to go on: those of all, and their own."""
    found = ((entry, _OWN.search(entry.path)) for entry in manifest.files)
    return [entry for entry, own in found if own is None or int(own["rank"]) in ranks]


def _take(source: Path, entry: FileEntry, target: Path) -> bool:
    """Copy what is staged, if it is what was committed."""
    sha256 = hashlib.sha256()
    try:
        with source.open("rb", buffering=0) as stream, target.open("wb") as sink:
            for chunk in _digested(stream, entry.size, sha256):
                sink.write(chunk)
    except OSError:
        return False  # swept in this moment, or cut short: the store has it
    return sha256.hexdigest() == entry.sha256


def _receive(store: Store, prefix: str, entry: FileEntry, target: Path, budget: _Budget) -> None:
    """Bring a file. What is not as it was committed is asked for once more: a server may err for a moment."""
    with budget.taken(entry.size):
        for _ in range(_LOOKS):
            wrong = _received(store, f"{prefix}/{entry.path}", entry, target, budget.parts(entry.size))
            if not wrong:
                return
    raise CorruptCheckpointError(f"{prefix}/{entry.path} {wrong}")


def _received(store: Store, path: str, entry: FileEntry, target: Path, at_once: int) -> str:
    """What is wrong with what came; empty when nothing is."""
    sha256, size = hashlib.sha256(), 0
    try:
        with target.open("wb") as sink:
            for chunk in store.stream(path, entry.size, at_once):
                sha256.update(chunk)
                size += len(chunk)
                sink.write(chunk)
    except errors.NotFoundError:
        return "is missing"
    if size != entry.size:
        return f"has {size:,} bytes instead of {entry.size:,}"
    return "" if sha256.hexdigest() == entry.sha256 else "has another SHA-256 than committed"


def chunk_bytes(size: int) -> int:
    """Bytes of each part of an object of so many bytes: 8 MiB, and more from 80 GiB on, for S3 takes 10,000 parts.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
    """
    return CHUNK_BYTES * max(1, math.ceil(size / (CHUNK_BYTES * _MOST_PARTS)))


def _fill(stream: io.RawIOBase, piece: memoryview) -> None:
    while len(piece):
        count = stream.readinto(piece)
        if not count:
            raise _shrunk(stream)
        piece = piece[count:]


def _shrunk(stream: io.RawIOBase) -> OSError:
    return OSError(errno.EIO, "the file has shrunk while it was read", getattr(stream, "name", None))


def _digested(
    stream: io.RawIOBase, size: int, sha256: "hashlib._Hash", most: int = CHUNK_BYTES
) -> Iterator[memoryview]:
    """The first `size` bytes of a file, so many at once, their digest on the way. Raises OSError when it has fewer.

    In small pieces, and giving way after each: threads of MKL that wait for each other do not sleep, they let others
    have their core (sched_yield(2)), and who has taken it keeps it until the next tick, milliseconds later, unless it
    gives it back. So would one that has not asked the kernel for anything, where that preempts lazily (Linux 6.13).
    """
    mapped = _in_memory(stream)
    for begin in range(0, size, most):
        count = min(most, size - begin)
        chunk = _map(stream, begin, count) if mapped else memoryview(bytearray(count))
        for at in range(0, count, _PIECE):
            piece = chunk[at : at + _PIECE]
            if not mapped:
                _fill(stream, piece)
            sha256.update(piece)
            os.sched_yield()
        yield chunk


def _in_memory(stream: io.RawIOBase) -> bool:
    """Whether a file lies where staging in memory has its buffers: it is sent from there, without a copy.

    Of a file on a disk that fails, or that grows shorter, a mapping would kill this process (SIGBUS, mmap(2)).
    """
    with contextlib.suppress(OSError):
        return os.fstat(stream.fileno()).st_dev == Path(MEMORY).stat().st_dev
    return False


def _map(stream: io.RawIOBase, begin: int, count: int) -> memoryview:
    try:
        return memoryview(mmap.mmap(stream.fileno(), count, access=mmap.ACCESS_READ, offset=begin))
    except ValueError:  # it ends before
        raise _shrunk(stream) from None


@contextlib.contextmanager
def _own_errors(chunks: Iterator[memoryview]) -> Iterator[Iterator[memoryview]]:
    """Within, an error in what makes the chunks comes out as itself, not as one of the store that asks for them."""
    own: list[OSError] = []

    def watched() -> Iterator[memoryview]:
        try:
            yield from chunks
        except OSError as error:
            own.append(error)
            raise

    try:
        yield watched()
    except errors.StorageError:
        if own:
            raise own[0] from None
        raise
