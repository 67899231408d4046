"""metrics.jsonl: every logged value of a run, across its attempts."""

import contextlib
import json
import math
import time
from typing import Any

from trainyard import errors
from trainyard.storage import layout
from trainyard.storage.store import Store

_MIN_INTERVAL = 5.0
_BUSY_SHARE = 0.02
"""Object stores cannot append, so the file is written whole; at most this share of the time is spent on it."""


class MetricsLog:
    """The rows of metrics.jsonl; kept in memory and written whole, not more often than is cheap."""

    def __init__(self, store: Store, resumed_step: int) -> None:
        self._store = store
        self._rows = [row for row in _read(store) if row.get("step", 0) <= resumed_step]
        self._next_write = 0.0

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first."""
        return self._rows

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, and write the file if it is time."""
        self._rows.append(row)
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write the file now. Raises StorageError."""
        start = time.monotonic()
        self._store.put(layout.METRICS, "".join(json.dumps(_finite(row)) + "\n" for row in self._rows).encode())
        end = time.monotonic()
        self._next_write = end + max(_MIN_INTERVAL, (end - start) / _BUSY_SHARE)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """The row with null for what JSON cannot hold: nan and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _read(store: Store) -> list[dict[str, Any]]:
    try:
        lines = store.get(layout.METRICS).decode(errors="replace").splitlines()
    except errors.NotFoundError:
        return []
    rows = []
    for line in lines:
        # A damaged line is a lost point of a curve, no reason to stop training.
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows
