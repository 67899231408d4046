"""A stop at a step at which Trainer has plans of its own."""

import json
from pathlib import Path

import pytest

from tests.conftest import Tiny
from tests.train.conftest import Train
from trainyard.checkpoint import catalogue
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import open_store

SCRIPT = """
import json, os, signal, sys
from transformers import GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

class Told(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_evaluate(self, args, state, control, **kwargs):
        print("EVALUATED", state.global_step, flush=True)

given = json.loads(sys.argv[2])
rows = [{"input_ids": [row % 16] * 8, "labels": [row % 16] * 8} for row in range(40)]
args = TrainingArguments(
    "out", max_steps=20, per_device_train_batch_size=8, use_cpu=True, report_to="none", disable_tqdm=True, **given
)
model = GPT2LMHeadModel.from_pretrained(sys.argv[1])
Trainer(model, args, train_dataset=rows, eval_dataset=rows[:4], callbacks=[Told()]).train()
"""


@pytest.mark.parametrize(
    ("given", "evaluated"),
    [
        (
            {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss",
             "greater_is_better": True},
            ["1", "2", "3"],
        ),
        (
            {"save_strategy": "epoch", "eval_strategy": "epoch", "metric_for_best_model": "loss",
             "load_best_model_at_end": True},
            [],
        ),
    ],
    ids=["best", "epoch"],
)  # fmt: skip
def test_a_stop_saves_once_and_does_nothing_else(
    train: Train, tiny: Tiny, tmp_path: Path, given: dict[str, object], evaluated: list[str]
) -> None:
    """At a step that is not the best so far, and within an epoch, of which it is no end."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SCRIPT)
    done = train(code=str(code), script={"path": "train.py", "args": [tiny.model("gpt2"), json.dumps(given)]})
    assert (done.result.outcome, done.result.step) == ("Stopped", 3), done.log
    assert [line.split()[1] for line in done.log.splitlines() if line.startswith("EVALUATED")] == evaluated
    assert catalogue.committed(catalogue.list_checkpoints(open_store(str(done.run))))[0] == CheckpointId(3, 1)
