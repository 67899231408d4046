"""How often to save, and how to share a batch among another number of processes."""

import math
import time

import pytest

from trainyard.plan.batch import Batch, keep_global
from trainyard.plan.batch import batch as batch_of
from trainyard.train.cadence import SECONDS_BETWEEN_FAULTS, Cadence, Costs, interval


@pytest.mark.parametrize(
    ("every", "workers", "costs", "seconds"),
    [
        ("90s", 1, Costs(9.0, 9.0), 90.0),
        ("10m", 4, Costs(0.0, 0.0), 600.0),
        ("Auto", 1, Costs(0.0, 0.0), 60.0),
        ("Auto", 1, Costs(0.5, 5.0), math.sqrt(2 * 0.5 * SECONDS_BETWEEN_FAULTS)),
        ("Auto", 100, Costs(0.5, 5.0), math.sqrt(2 * 0.5 * SECONDS_BETWEEN_FAULTS / 100)),
        ("Auto", 100, Costs(0.001, 300.0), 300.0),
        ("Auto", 1000, Costs(0.0001, 1.0), 15.0),
    ],
    ids=["seconds", "minutes", "unknown", "young-daly", "more-workers", "slow-commit", "floor"],
)
def test_interval(every: str, workers: int, costs: Costs, seconds: float) -> None:
    assert interval(every, workers, costs) == pytest.approx(seconds)


def test_what_auto_chooses_is_told_when_it_changes_much(monkeypatch: pytest.MonkeyPatch) -> None:
    now, costs, told = [0.0], [Costs(0.0, 0.0)], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    cadence = Cadence("Auto", 1, lambda: costs[0], told.append, _last=0.0)
    due = []
    for now[0], costs[0] in ((59, Costs(0, 0)), (61, Costs(0, 0)), (400, Costs(0.01, 5)), (700, Costs(0.012, 5))):
        due.append(cadence.due())
    assert due == [False, True, True, True]
    assert told == [
        "checkpoint.every: Auto saves every 228 s from here on: one stops training for 10 ms and is committed after 5.0 s"
    ]


@pytest.mark.parametrize(
    ("per_device", "world", "batch", "kept"),
    [(8, 1, 16, (8, 2)), (8, 2, 16, (8, 1)), (8, 4, 16, (4, 1)), (6, 2, 16, (4, 2)), (8, 3, 16, None), (8, 32, 16, None)],
    ids=["half", "same", "twice", "odd", "three", "too-many"],
)  # fmt: skip
def test_the_batch_is_kept_or_refused(per_device: int, world: int, batch: int, kept: tuple[int, int] | None) -> None:
    planned = Batch(per_device=per_device, accumulation=1, world_size=world, steps_per_epoch=None, total_steps=None)
    assert keep_global(planned, batch) == kept


def test_split_batch_is_the_argument_of_all_processes() -> None:
    planned = batch_of({"accelerator_config": {"split_batches": True}, "per_device_train_batch_size": 8}, 2, 64)
    assert (planned.per_device, planned.global_size, planned.total_steps) == (4, 8, 24)
    kept = keep_global(planned, 16)
    assert kept == (4, 2)
    assert planned.argument(kept[0]) == 8
