"""Where an attempt's time goes: to steps, and to everything that is none.

The split is a row of metrics.jsonl at each save and at the end, and a part of each checkpoint's manifest.
"""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainyard.train.metrics import MetricsLog
from trainyard.train.saving import Saving

PARTS = ("productive", "start_up", "restore", "stall", "other", "lost")
"""What a split holds in seconds."""


class Clock:
    """When this attempt has begun, and for how long a checkpoint was restored; in seconds."""

    begun = time.monotonic()
    restore = 0.0

    @classmethod
    def start(cls, began: float | None, restoring: float) -> None:
        """An attempt that the driver began, before there was this process: seconds since the epoch."""
        before = time.time() - began if began is not None else 0.0
        cls.begun, cls.restore = time.monotonic() - max(0.0, before), restoring


class GoodputCallback(TrainerCallback):
    """Measures the split of one attempt, on rank 0."""

    def __init__(self, saving: Saving, log: MetricsLog, attempt: int) -> None:
        self._saving, self._log, self._attempt = saving, log, attempt
        self._before = by_attempt(log.counting)
        self._productive = self._start_up = 0.0
        self._step_began = self._blocked_before = 0.0

    def split(self) -> dict[str, float]:
        """Seconds by category (PARTS), the numbers of skipped and of waited saves, and of repeated steps.

        `lost` are seconds of earlier attempts and between them: from their last row that counts to their last one.
        """
        total = time.monotonic() - Clock.begun
        stall = self._saving.totals.blocked
        start_up = self._start_up or total - Clock.restore
        other = total - start_up - Clock.restore - self._productive - stall
        parts = {
            "productive": self._productive,
            "start_up": start_up,
            "restore": Clock.restore,
            "stall": stall,
            "other": max(0.0, other),
            "lost": self._log.lost_seconds,
        }
        saves = {"skipped_saves": self._saving.totals.skipped, "waited_saves": self._saving.totals.waited}
        lost = {"lost_steps": self._log.lost_steps}
        return {**{name: round(value, 3) for name, value in parts.items()}, **saves, **lost}

    def share(self) -> float | None:
        """The share of all attempts' time so far that went to steps which count, between 0 and 1."""
        return share({**self._before, self._attempt: self.split()})

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The first step ends the start."""
        self._step_began, self._blocked_before = time.monotonic(), self._saving.totals.blocked
        if not self._start_up:
            self._start_up = self._step_began - Clock.begun - Clock.restore

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step's time counts, but for what it waited for a save."""
        blocked = self._saving.totals.blocked - self._blocked_before
        self._productive += time.monotonic() - self._step_began - blocked

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the split, should the attempt not come to its end."""
        self._tell(state)

    on_train_end = on_save

    def _tell(self, state: TrainerState) -> None:
        self._log.add({"step": state.global_step, "attempt": self._attempt, "goodput": self.split()})


def by_attempt(rows: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """The last split of each attempt. A user may log a value of the same name, which is none."""
    splits: dict[int, dict[str, float]] = {}
    for row in rows:
        split = row.get("goodput")
        if isinstance(split, dict) and isinstance(row.get("attempt"), int) and "productive" in split:
            splits[row["attempt"]] = split
    return splits


def share(splits: dict[int, dict[str, float]]) -> float | None:
    """The part of all attempts' time that went to steps that count, between 0 and 1; None when nothing is known."""
    total = sum(split.get(part, 0.0) for split in splits.values() for part in PARTS)
    return sum(split["productive"] for split in splits.values()) / total if total else None
