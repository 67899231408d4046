"""How a training process ends when a user's script fails in it."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import Train
from trainyard.protocol.ending import Cause

SCRIPT = """
import os, sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

{before}

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, row):
        return dict(input_ids=[row % 16] * 8, labels=[row % 16] * 8)


class Fails(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            {fails}

args = TrainingArguments("out", max_steps=6, per_device_train_batch_size=4, save_steps=100, use_cpu=True, report_to="none")
model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=16))
Trainer(model, args, train_dataset=Rows(), callbacks=[Fails()]).train()
"""
REQUEST = 'import requests; requests.get("http://127.0.0.1:9/rows")'


@pytest.mark.parametrize(
    ("before", "fails", "outcome", "cause", "step", "message"),
    [
        ("", 'raise KeyError("text")', "Infrastructure", Cause.CODE, 3, "KeyError: 'text'"),
        ("", "sys.exit(4)", "Infrastructure", Cause.CODE, 3, "train.py ended with exit code 4"),
        ("", REQUEST, "Infrastructure", Cause.NETWORK, 3, "a server cannot be reached"),
        (
            "",
            "raise RuntimeError('one\\ntwo\\nthree')",
            "Infrastructure",
            Cause.CODE,
            3,
            "RuntimeError: one … three",
        ),
        ('raise KeyError("text")', "pass", "UserError", Cause.CODE, 0, "KeyError: 'text'"),
        ("sys.exit(4)", "pass", "UserError", Cause.CODE, 0, "train.py ended with exit code 4"),
        (REQUEST, "pass", "Infrastructure", Cause.NETWORK, 0, "a server cannot be reached"),
    ],
    ids=["raises", "exits", "asks", "raises lines", "raises first", "exits first", "asks first"],
)
def test_script_that_fails_says_its_step_and_place(
    train: Train, tmp_path: Path, before: str, fails: str, outcome: str, cause: Cause, step: int, message: str
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SCRIPT.format(before=before, fails=fails))
    given: dict[str, Any] = {"code": str(code), "script": {"path": "train.py"}}
    ending = train(**given).result
    assert (ending.outcome, ending.cause, ending.step) == (outcome, cause, step), ending
    assert message in ending.message
    if cause is Cause.CODE:
        line = (code / "train.py").read_text().splitlines().index(before or f"            {fails}") + 1
        assert ending.where.endswith(f"train.py:{line}"), ending.where
