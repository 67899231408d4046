"""metrics.jsonl: every logged value of a run, across its attempts.

Rank 0 appends to a file on its node; the node's uploader copies it to storage, before each checkpoint and now and then.
"""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

from trainyard import errors
from trainyard.checkpoint import doorbell
from trainyard.storage import layout
from trainyard.storage.store import Store

_MIN_INTERVAL = 1.0


class MetricsLog:
    """The rows of metrics.jsonl on this node."""

    def __init__(self, store: Store, kept: doorbell.Metrics, bell: Path, resumed_step: int) -> None:
        self._kept, self._bell = kept, bell
        self.file = file = kept.file
        self._next_ring = 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = _read(store)
        counting = [row for row in rows if row.get("step", 0) <= resumed_step]
        lost = [row for row in rows if row.get("step", 0) > resumed_step]
        self.lost_steps = max((row["step"] for row in lost), default=resumed_step) - resumed_step
        """Steps that were made before, and are made again."""
        times = [row["time"] for row in lost if "time" in row]
        begun = min(times, default=0.0)
        since = max((row["time"] for row in counting if row.get("time", begun) < begun), default=begun)
        self.lost_seconds = max(times, default=since) - since
        """From the last row that counts to the last one that does not, with what lies between two attempts."""
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(row) for row in counting)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, with the time."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(_line({**row, "time": round(time.time(), 3)}))
        if time.monotonic() >= self._next_ring:
            doorbell.ring(self._bell, self._kept)
            self._next_ring = time.monotonic() + _MIN_INTERVAL

    def flush(self) -> None:
        """Return when everything is in storage, if it can be reached."""
        doorbell.keep(self._bell, self._kept)


def _line(row: dict[str, Any]) -> str:
    """The row as JSON, which cannot hold nan and infinity: they are null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    return json.dumps(finite) + "\n"


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
