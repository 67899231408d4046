"""accelerator_config.split_batches: plan, Trainer and the checkpoint's manifest count one step alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tiny, manifest
from tests.train.conftest import Train
from trainyard.checkpoint import catalogue
from trainyard.plan.facts import Facts
from trainyard.plan.plan import plan
from trainyard.spec.manifest import loads
from trainyard.storage.store import open_store

ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 1, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 4, "seed": 1,
    "learning_rate": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize(("ranks", "split", "samples"), [(1, False, 8), (2, True, 8), (2, False, 16)])
def test_step_is_as_large_as_planned(train: Train, tiny: Tiny, ranks: int, split: bool, samples: int) -> None:
    arguments = {**ARGUMENTS, "accelerator_config": {"split_batches": split}}
    changes = {
        "model": {"source": tiny.model("bert")},
        "data": {"train": {"source": tiny.rows("classes")}},
        "trainingArguments": arguments,
    }
    job = loads(json.dumps(manifest(**changes, workers={"count": ranks}))).job
    planned = plan(job, Facts(train_rows=64)).batch
    assert planned is not None
    done = train(ranks, name="run", **changes)
    assert done.result.outcome == "Complete", done.log
    (newest, *_) = catalogue.committed(catalogue.list_checkpoints(open_store(str(done.run))))
    written = json.loads((Path(done.run) / "checkpoints" / str(newest) / "manifest.json").read_text())
    assert (planned.global_size, planned.total_steps) == (samples, 64 // samples)
    assert (written["global_batch_size"], done.result.step) == (samples, 64 // samples)


def test_split_step_is_the_step_of_one_process(train: Train, tiny: Tiny) -> None:
    """Two processes that share a batch of eight learn what one learns of it."""
    changes = {"model": {"source": tiny.model("bert")}, "data": {"train": {"source": tiny.rows("classes")}}}
    arguments = {**ARGUMENTS, "accelerator_config": {"split_batches": True}}

    def losses(ranks: int) -> list[float]:
        done = train(ranks, name=f"of-{ranks}", trainingArguments=arguments, **changes)
        assert done.result.outcome == "Complete", done.log
        rows = (json.loads(line) for line in (done.run / "metrics.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows if "loss" in row]

    assert losses(2) == pytest.approx(losses(1), rel=1e-2)
