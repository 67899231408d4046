"""A resumed run draws the random numbers that the unbroken run drew for its data."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT, Tiny, losses
from tests.train.conftest import Train

VARIANTS = [
    "no workers", "no workers, accumulated", "no workers, at an epoch's end", "two workers", "two workers, prefetching",
    "two workers, resumed twice", "three workers, before each has served", "two persistent workers",
    "two persistent workers, at an epoch's end",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What tests/train/random_data.py finds."""
    folder = tmp_path_factory.mktemp("random")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.random_data", str(folder), tiny.model("bert")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_data_is_the_unbroken_runs(runs: dict[str, dict[str, Any]], variant: str) -> None:
    unbroken, resumed = runs[variant]["unbroken"], runs[variant]["resumed"]
    assert len(resumed) == len(unbroken)
    assert resumed == pytest.approx(unbroken, abs=1e-6)
    assert len(set(unbroken.values())) == len(unbroken)


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_of_a_resumed_job_are_the_unbroken_ones(tiny: Tiny, train: Train, workers: int) -> None:
    arguments = {
        "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 3, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "dataloader_num_workers": workers,
    }  # fmt: skip
    spec: dict[str, Any] = {
        "task": "fill-mask",
        "model": {"source": tiny.model("bert")},
        "data": {"train": {"source": tiny.rows("texts")}},
    }
    train(name="broken", **spec, trainingArguments={**arguments, "max_steps": 3})
    again = train(name="broken", **spec, trainingArguments={**arguments, "max_steps": 6})
    whole = train(name="whole", **spec, trainingArguments={**arguments, "max_steps": 6})
    assert losses(again.run) == pytest.approx(losses(whole.run), abs=1e-6)
