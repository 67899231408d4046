"""Logs on their way: growing files to storage, and the ranks' logs into the log of their pod."""

import contextlib
import io
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TextIO

from trainyard.storage.segments import GrowingFile
from trainyard.storage.store import Store

_UPLOAD_SECONDS = 10.0
_TAIL_SECONDS = 1.0
_RANK = re.compile(r"rank-(\d+)\.log\Z")
_MAX_READ = 1024 * 1024
_MAX_CHARACTER = 4
"""Bytes of a character in UTF-8."""
LINE_BYTES = 8 * 1024
"""Of one line in the log of a pod. Container runtimes split lines of more than 16 KiB, and some shippers drop them."""


class LogUpload:
    """Copies a growing log to storage now and then, and once at the end."""

    def __init__(self, store: Callable[[], Store], path: str, log: Path) -> None:
        self._open, self.log = store, log
        self._copied = GrowingFile(path)
        self._store: Store | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"upload of {path}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._copy()

    def _loop(self) -> None:
        while not self._done.wait(_UPLOAD_SECONDS):
            self._copy()

    def _copy(self) -> None:
        try:
            if self._store is None:
                self._store = self._open()
            self._copied.copy(self._store, self.log)
        except Exception:  # noqa: BLE001 - a log that cannot be copied must not take the training down
            return


class Tee(io.TextIOBase):
    """A text stream that writes to two: what a person sees is kept as well."""

    def __init__(self, first: TextIO, file: Path) -> None:
        self._first, self._second = first, file.open("a", encoding="utf-8", errors="backslashreplace")
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write to both. Neither a reader of the first that has gone, nor characters it cannot show, do any harm."""
        with self._lock:
            for stream in (self._second, self._first):
                try:
                    stream.write(text)
                    stream.flush()
                except (OSError, UnicodeError):
                    continue
        return len(text)


@dataclass
class _Log:
    """The log of one rank, open: its end can be read although the attempt's folder is removed."""

    rank: str
    stream: BinaryIO
    rest: bytes = b""
    """The beginning of a line whose end has not been written yet."""


class RankTail:
    """Writes the new lines of the training processes' logs to a stream, each with its rank.

    A line longer than LINE_BYTES is cut into pieces of that size: a program may print a megabyte without a newline. A
    progress bar returns to the beginning of its line again and again: a piece shows its last state, as a terminal does.
    """

    def __init__(self, folder: Path, out: TextIO) -> None:
        self.folder, self.out = folder, out
        self._logs: dict[Path, _Log] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="tail of the ranks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, also a last line without its newline."""
        self._done.set()
        self._thread.join()
        self.look()
        for log in self._logs.values():
            self._end(log)

    def look(self) -> None:
        """Write every line that has come since the last look."""
        self._find()
        for path, log in list(self._logs.items()):
            is_removed = os.fstat(log.stream.fileno()).st_nlink == 0
            with contextlib.suppress(OSError):
                self._read(log)
            if is_removed:
                self._end(log)
                del self._logs[path]

    def _find(self) -> None:
        for path in sorted(self.folder.glob("attempt-*/rank-*.log")):
            match = _RANK.search(path.name)
            if match is None or path in self._logs:
                continue
            with contextlib.suppress(OSError):  # the attempt is over and its folder gone
                self._logs[path] = _Log(match[1], path.open("rb"))

    def _read(self, log: _Log) -> None:
        while data := log.stream.read(_MAX_READ):
            *lines, log.rest = (log.rest + data).split(b"\n")
            for line in lines:
                self._write(log, line)
            while len(log.rest) > LINE_BYTES:
                end = _piece_end(log.rest)
                self._write(log, log.rest[:end])
                log.rest = log.rest[end:]

    def _end(self, log: _Log) -> None:
        if log.rest:
            self._write(log, log.rest)
        log.stream.close()

    def _write(self, log: _Log, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        while True:
            end = _piece_end(shown)
            self.out.write(f"[rank {log.rank}] {shown[:end].decode(errors='replace')}\n")
            shown = shown[end:]
            if not shown:
                return

    def _loop(self) -> None:
        while not self._done.wait(_TAIL_SECONDS):
            self.look()


def _piece_end(line: bytes) -> int:
    """Where to cut a line: after a state of a progress bar, else between two characters; its length if it is short."""
    if len(line) <= LINE_BYTES:
        return len(line)
    state_end = line.rfind(b"\r", 0, LINE_BYTES) + 1
    if state_end:
        return state_end
    end = LINE_BYTES
    while end > LINE_BYTES - _MAX_CHARACTER and line[end] & 0b1100_0000 == 0b1000_0000:  # inside a UTF-8 sequence
        end -= 1
    return end
