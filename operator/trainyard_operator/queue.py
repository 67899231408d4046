"""A queue of keys: each is in it once, worked on by one thread at a time, and waits longer after each failure."""

import heapq
import threading
import time

_FIRST_DELAY, _MAX_DELAY = 0.5, 60.0


class KeyQueue:
    """Keys to work on, now or later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._working: set[str] = set()
        self._failures: dict[str, int] = {}
        self._closed = False

    def add(self, key: str, delay: float = 0.0) -> None:
        """Have a key worked on after a delay (seconds); an earlier time that it already has stays."""
        with self._changed:
            due = time.monotonic() + delay
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._changed.notify()

    def take(self) -> str | None:
        """The next key that is due; blocks. None when the queue is closed."""
        with self._changed:
            while not self._closed:
                wait = None
                skipped = []
                while self._heap:
                    due, key = self._heap[0]
                    if self._due.get(key) != due:
                        heapq.heappop(self._heap)
                    elif due > time.monotonic():
                        wait = due - time.monotonic()
                        break
                    elif key in self._working:
                        skipped.append(heapq.heappop(self._heap))
                    else:
                        heapq.heappop(self._heap)
                        del self._due[key]
                        self._working.add(key)
                        self._restore(skipped)
                        return key
                self._restore(skipped)
                self._changed.wait(wait)
            return None

    def done(self, key: str, failed: bool = False) -> None:
        """A key has been worked on; a failed one comes again, later each time."""
        with self._changed:
            self._working.discard(key)
            self._changed.notify()
        if failed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            self.add(key, min(_MAX_DELAY, _FIRST_DELAY * 2 ** (count - 1)))
        else:
            self._failures.pop(key, None)

    def close(self) -> None:
        """Let take() return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _restore(self, skipped: list[tuple[float, str]]) -> None:
        for entry in skipped:
            heapq.heappush(self._heap, entry)
