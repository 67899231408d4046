"""What rank 0 reports of a run: events for whoever shows them, and the rows of metrics.jsonl."""

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainyard.train.events import Events, led_by, plain
from trainyard.train.metrics import MetricsLog

_EVENT_INTERVAL = 0.1
"""Seconds between two events of steps: a screen shows no more."""


class ProgressCallback(TrainerCallback):
    """Reports rank 0's progress: an event for whoever shows it, a row for metrics.jsonl.

    A step whose loss is logged is reported once, by the event of the log: the step and its own loss arrive together.
    """

    def __init__(
        self,
        events: Events,
        log: MetricsLog,
        batch_size: int,
        tokens_per_sample: float | None,
        goodput: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`goodput`: the share of the run's time that went to steps which count, between 0 and 1."""
        self._events, self._log, self._goodput = events, log, goodput
        self._batch_size, self._tokens = batch_size, tokens_per_sample
        self._start_step, self._start = 0, time.monotonic()
        self._first_end: float | None = None
        self._paused, self._pause_start = 0.0, 0.0
        self._next_event = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The clock of the throughput starts here."""
        self._start_step, self._start = state.global_step, time.monotonic()
        self._first_end = None
        self._paused, self._pause_start = 0.0, 0.0
        self._events.send("train", step=state.global_step, total=state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Time between a step's end and the next one's begin went to saving and evaluating."""
        if self._pause_start:
            self._paused += time.monotonic() - self._pause_start
            self._pause_start = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report the step, at most ten times a second."""
        now = time.monotonic()
        self._pause_start = now
        if self._first_end is None:
            self._first_end = now
        is_last = state.global_step == state.max_steps
        if not control.should_log and (now >= self._next_event or is_last):
            self._next_event = now + _EVENT_INTERVAL
            self._events.send("step", **self._place(state), **self._throughput(state))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Keep what Trainer logs, with the step and the time."""
        if state.log_history:  # a checkpoint holds it as JSON, and user code may log what JSON lacks
            state.log_history[-1] = _as_json(state.log_history[-1])
        row = {str(name): value for name, value in (logs or {}).items()}
        if "loss" in row:
            row |= self._throughput(state)
        self._events.send("log", **led_by(self._place(state), row))
        self._log.add(led_by({"step": state.global_step}, row))

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report that an evaluation is under way."""
        now = time.monotonic()
        if now >= self._next_event:
            self._next_event = now + _EVENT_INTERVAL
            self._events.send("evaluating", step=state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What was logged is in storage before the end is reported."""
        self._log.flush()

    def _place(self, state: TrainerState) -> dict[str, Any]:
        """Where the run is: its step and the last one, and its goodput."""
        place: dict[str, Any] = {"step": state.global_step, "total": state.max_steps}
        share = self._goodput()
        if share is not None:
            place["goodput_share"] = round(share, 4)
        return place

    def _throughput(self, state: TrainerState) -> dict[str, float]:
        """Rates of this attempt's steps, and `eta_seconds` until the last step.

        The estimate counts from the end of the first step, which also pays for what starts with it; pauses for saves
        and evaluations count, for more of them will come.
        """
        steps = state.global_step - self._start_step
        now = time.monotonic()
        seconds = now - self._start - self._paused
        if steps <= 0 or seconds <= 0:
            return {}
        samples = steps * self._batch_size / seconds
        rates = {"samples_per_second": round(samples, 2), "step_seconds": round(seconds / steps, 4)}
        if self._tokens:
            rates["tokens_per_second"] = round(samples * self._tokens, 1)
        if self._first_end is not None and steps > 1:
            each = (now - self._first_end) / (steps - 1)
            rates["eta_seconds"] = round(each * (state.max_steps - state.global_step), 1)
        return rates


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """The row with what JSON lacks converted; numbers stay as they are, NaN and infinity too."""
    return {str(name): value if isinstance(value, float) else plain(value) for name, value in row.items()}
