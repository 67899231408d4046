"""Where an attempt's time goes."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainyard.checkpoint.doorbell import Metrics
from trainyard.checkpoint.staging import Run
from trainyard.storage import layout
from trainyard.storage.store import open_store
from trainyard.train.goodput import Clock, GoodputCallback, by_attempt, share
from trainyard.train.metrics import MetricsLog, read_rows
from trainyard.train.saving import Totals


def test_what_passed_before_this_process_began_is_start_up_and_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("begun", "restore"):  # of this process: set back at the end
        monkeypatch.setattr(Clock, name, getattr(Clock, name))
    saving: Any = SimpleNamespace(totals=Totals())
    log: Any = SimpleNamespace(lost_steps=0, lost_seconds=0.0, counting=[])
    Clock.start(time.time() - 100, restoring=40)
    split = GoodputCallback(saving, log, 2).split()
    assert split["restore"] == 40
    assert 60 <= split["start_up"] < 70


@pytest.mark.parametrize(
    ("resumed", "steps", "seconds"),
    [(4, 2, 20.0), (6, 0, 0.0), (0, 6, 55.0)],
    ids=["from the last save", "from the end", "before any save"],
)
def test_what_attempts_before_have_made_and_nobody_goes_on_from_is_lost(
    tmp_path: Path, resumed: int, steps: int, seconds: float
) -> None:
    """Steps 1 to 6, ten seconds each, and a save at step 4 that took five."""
    rows: list[dict[str, Any]] = [
        *({"step": step, "loss": 1.0, "time": 10.0 * step} for step in range(1, 5)),
        {"step": 4, "attempt": 1, "goodput": {"productive": 40.0}, "time": 45.0},
        *({"step": step, "loss": 1.0, "time": 10.0 * step + 5.0} for step in (5, 6)),
    ]
    store = open_store(str(tmp_path / "run"))
    store.put(layout.METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    kept = Metrics(tmp_path / "metrics.jsonl", Run(store.uri, None, None), 2)
    log = MetricsLog(store, kept, tmp_path / "no-bell", resumed)
    assert (log.lost_steps, log.lost_seconds) == (steps, seconds)


def test_reported_share_is_that_of_metrics_jsonl(tmp_path: Path) -> None:
    """A second attempt, whose first one kept 40 of 55 seconds."""
    first = {"productive": 40.0, "start_up": 10.0, "restore": 0.0, "stall": 5.0, "other": 0.0, "lost": 0.0}
    store = open_store(str(tmp_path / "run"))
    store.put(layout.METRICS, (json.dumps({"step": 4, "attempt": 1, "goodput": first, "time": 1.0}) + "\n").encode())
    log = MetricsLog(store, Metrics(tmp_path / "metrics.jsonl", Run(store.uri, None, None), 2), tmp_path / "no-bell", 4)
    saving: Any = SimpleNamespace(totals=Totals())
    args, state, control = TrainingArguments(str(tmp_path)), TrainerState(global_step=5), TrainerControl()
    goodput = GoodputCallback(saving, log, 2)
    goodput.on_step_begin(args, state, control)
    goodput.on_step_end(args, state, control)
    goodput.on_save(args, state, control)
    written = share(by_attempt(read_rows(log.file.read_text())))
    assert goodput.share() == pytest.approx(written, abs=0.01)
    assert written == pytest.approx(40 / (55 + time.monotonic() - Clock.begun), abs=0.01)


def test_the_share_of_steps_that_count_knows_what_was_lost() -> None:
    rest = {"start_up": 10.0, "restore": 0.0, "stall": 0.0, "other": 0.0}
    splits = {1: {"productive": 40.0, **rest}, 2: {"productive": 20.0, **rest, "lost": 20.0}}
    assert share(splits) == pytest.approx(0.6)
