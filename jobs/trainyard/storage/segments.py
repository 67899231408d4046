"""Files that grow, as storage has them: logs and metrics.jsonl.

An object store cannot append to an object, and to copy a growing file whole each time would send O(n²) bytes. So it is
stored in segments: `logs/rank-1.log` holds the file's beginning, and `logs/rank-1/000001048576.log` what follows, named
by the byte at which it begins.

The bytes that are new at a copy become a segment. It takes in those before it that are not larger, as a binary counter
carries, up to SEGMENT_BYTES. So a file of n bytes lies in about n / SEGMENT_BYTES segments and a few small ones, and
each byte is sent a few times at most: log2(SEGMENT_BYTES / bytes of a copy), however long the file becomes.

A segment is written before those that it has taken in are deleted. A reader that comes between finds bytes twice, and
leaves out a segment that begins before the end of what it has read.

A folder can append, so there the file lies whole.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trainyard import errors
from trainyard.storage.store import Store

SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment of this size is never written again."""
_TRIES = 3
"""Listings of a reader: between a listing and a read the writer may have merged what was listed."""
_START = re.compile(r"(\d{12,})\.[^/]*\Z")


@dataclass(frozen=True)
class _Segment:
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass
class GrowingFile:
    """The copy of one growing file in storage, from the side of its only writer.

    The first copy replaces whatever an earlier writer has left at the path.
    """

    path: str
    durable: bool = False
    """Whether a copy outlives a loss of power where the store is a folder."""
    _segments: list[_Segment] = field(default_factory=list)
    _begun: bool = False

    def copy(self, store: Store, file: Path) -> None:
        """Have in storage what the file holds now. Raises StorageError, and OSError when the file is not there."""
        size = file.stat().st_size
        if store.local_path() is not None:
            self._append(store, file, size)
            return
        if not self._begun:
            self._put(store, file, 0, min(size, SEGMENT_BYTES))
            store.delete(path for _, path in _listed(store, self.path))
            self._begun = True
        for start in range(self._end, size, SEGMENT_BYTES):
            self._put(store, file, start, min(size, start + SEGMENT_BYTES))

    @property
    def _end(self) -> int:
        """Bytes of the file that are in storage."""
        return self._segments[-1].end if self._segments else 0

    def _append(self, store: Store, file: Path, size: int) -> None:
        copied = store.size(self.path) if self._begun else -1
        if not self._begun or copied != self._end or size < copied:
            store.put_file(self.path, file, self.durable)
            size = store.size(self.path)
        elif size > copied:
            store.append(self.path, _read(file, copied, size), self.durable)
        self._begun = True
        self._segments = [_Segment(0, size)]

    def _put(self, store: Store, file: Path, start: int, end: int) -> None:
        kept = list(self._segments)
        merged: list[_Segment] = []
        while kept and kept[-1].size <= end - start and end - kept[-1].start <= SEGMENT_BYTES:
            merged.append(kept.pop())
            start = merged[-1].start
        store.put(_segment_path(self.path, start), _read(file, start, end))
        self._segments = [*kept, _Segment(start, end)]
        store.delete(_segment_path(self.path, each.start) for each in merged if each.start != start)


def read(store: Store, path: str) -> bytes:
    """What was copied of a growing file, also of one that is stored whole. Raises NotFoundError when nothing was."""
    for _ in range(_TRIES - 1):
        content, whole = _joined(store, path)
        if whole:
            return content
    return _joined(store, path)[0]


def clear(store: Store, path: str) -> None:
    """Make a growing file empty: what an earlier writer has left of it is gone."""
    store.put(path, b"")
    store.delete(each for _, each in _listed(store, path))


def _joined(store: Store, path: str) -> tuple[bytes, bool]:
    """The segments one after the other, and whether none was missing."""
    content = bytearray(store.get(path))
    whole = True
    for start, each in _listed(store, path):
        if start < len(content):
            continue
        try:
            segment = store.get(each)
        except errors.NotFoundError:
            return bytes(content), False
        whole = whole and start == len(content)
        content += segment
    return bytes(content), whole


def _listed(store: Store, path: str) -> list[tuple[int, str]]:
    """The segments after the first in their order, each with the byte at which it begins."""
    names = (entry.path for entry in store.list(_folder(path)))
    return sorted((int(match[1]), name) for name in names if (match := _START.search(name)))


def _segment_path(path: str, start: int) -> str:
    return f"{_folder(path)}/{start:012d}{PurePosixPath(path).suffix}" if start else path


def _folder(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _read(file: Path, start: int, end: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(end - start)
