"""Code of a user's that changes weights while they are copied."""

from pathlib import Path

from tests.train.conftest import Train
from trainyard.checkpoint import catalogue
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import open_store

SCRIPT = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

class Clamped(TrainerCallback):
    @torch.no_grad()
    def on_step_begin(self, args, state, control, model=None, **kwargs):
        for each in model.parameters():
            each.clamp_(-1, 1)

rows = [{"input_ids": [row % 16] * 8, "labels": [row % 16] * 8} for row in range(8)]
model = GPT2LMHeadModel(GPT2Config(n_embd=512, n_layer=4, n_head=4, vocab_size=1000, n_positions=16))
args = TrainingArguments(
    "out", max_steps=4, save_steps=1, per_device_train_batch_size=1, use_cpu=True, report_to="none", disable_tqdm=True
)
Trainer(model, args, train_dataset=rows, callbacks=[Clamped()]).train()
"""


def test_weights_that_are_clamped_at_a_steps_begin_void_one_save_and_no_more(train: Train, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SCRIPT)
    done = train(code=str(code), script={"path": "train.py"}, checkpoint={"keepLast": 10, "backlog": "Wait"})
    assert done.result.outcome == "Complete", done.log
    committed = catalogue.committed(catalogue.list_checkpoints(open_store(str(done.run))))
    assert committed == [CheckpointId(step, 1) for step in (4, 3, 2)]
