"""Logs on their way: growing files to storage, and the ranks' logs into the log of their pod."""

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from trainyard.storage.store import Store

_UPLOAD_SECONDS = 10.0
_TAIL_SECONDS = 1.0
_RANK = re.compile(r"rank-(\d+)\.log\Z")
_MAX_READ = 1024 * 1024


class LogUpload:
    """Copies a growing log to storage now and then, and once at the end."""

    def __init__(self, store: Callable[[], Store], path: str, log: Path) -> None:
        self._open, self.path, self.log = store, path, log
        self._size = -1
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
            size = self.log.stat().st_size
            if size != self._size:
                self._open().put_file(self.path, self.log, durable=False)
                self._size = size
        except Exception:  # noqa: BLE001 - a log that cannot be copied must not take the training down
            return


class Tee(io.TextIOBase):
    """A text stream that writes to two: what a person sees is kept as well."""

    def __init__(self, first: TextIO, file: Path) -> None:
        self._first, self._second = first, file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write to both; a reader of the first that has gone away does not matter."""
        with self._lock:
            for stream in (self._second, self._first):
                try:
                    stream.write(text)
                    stream.flush()
                except OSError:
                    continue
        return len(text)


class RankTail:
    """Writes the new lines of the training processes' logs to a stream, each with its rank."""

    def __init__(self, folder: Path, out: TextIO) -> None:
        self.folder, self.out = folder, out
        self._read: dict[Path, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="tail of the ranks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left."""
        self._done.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Write every line that has come since the last look."""
        for log in sorted(self.folder.glob("attempt-*/rank-*.log")):
            try:
                with log.open("rb") as stream:
                    stream.seek(self._read.get(log, 0))
                    data = stream.read(_MAX_READ)
            except OSError:  # the attempt is over and its folder gone
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._read[log] = self._read.get(log, 0) + len(whole)
            found = _RANK.search(log.name)
            for line in whole.decode(errors="replace").splitlines():
                self.out.write(f"[rank {found[1] if found else '?'}] {line}\n")

    def _loop(self) -> None:
        while not self._done.wait(_TAIL_SECONDS):
            self.look()
