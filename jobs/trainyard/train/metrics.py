"""metrics.jsonl: every logged value of a run, across its attempts.

Rank 0 appends to a file on its node. The node's uploader copies what is new to storage, before each checkpoint and
every few seconds.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from trainyard import errors
from trainyard.checkpoint import doorbell
from trainyard.storage import layout, segments
from trainyard.storage.store import Store
from trainyard.train.events import encode, led_by

_MIN_INTERVAL = 1.0
_MAX_ROW = 64 * 1024
"""Bytes of a row."""


class MetricsLog:
    """The rows of metrics.jsonl on this node."""

    def __init__(self, store: Store, kept: doorbell.Metrics, bell: Path, resumed_step: int) -> None:
        self._kept, self._bell = kept, bell
        self.file = file = kept.file
        self._next_ring = 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = _stored(store)
        counting = [row for row in rows if row["step"] <= resumed_step]
        lost = [row for row in rows if row["step"] > resumed_step]
        self.counting = counting
        """The rows of earlier attempts, up to the step that this one resumes from."""
        self.lost_steps = max((row["step"] for row in lost), default=resumed_step) - resumed_step
        """Steps that earlier attempts did and this one repeats."""
        times = [row["time"] for row in lost if "time" in row]
        begun = min(times, default=0.0)
        since = max((row["time"] for row in counting if row.get("time", begun) < begun), default=begun)
        self.lost_seconds = max(times, default=since) - since
        """From the last row that counts to the last one that does not, with what lies between two attempts."""
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(row) for row in counting)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, with the time. A full disk loses the row: that must not take training down."""
        with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as stream:
            stream.write(_line(led_by({"time": round(time.time(), 3)}, row)))
        if time.monotonic() >= self._next_ring:
            doorbell.ring(self._bell, self._kept)
            self._next_ring = time.monotonic() + _MIN_INTERVAL

    def flush(self) -> None:
        """Return when everything is in storage, if it can be reached."""
        doorbell.keep(self._bell, self._kept)


def read_rows(text: str) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in their order. A damaged line is left out: it is a lost point of a curve."""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and _is_number(row.get("step")) and _is_number(row.get("time", 0.0)):
                rows.append(row)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _line(row: dict[str, Any]) -> str:
    return encode(row, _MAX_ROW).decode() + "\n"


def _stored(store: Store) -> list[dict[str, Any]]:
    try:
        return read_rows(segments.read(store, layout.METRICS).decode(errors="replace"))
    except errors.NotFoundError:
        return []
