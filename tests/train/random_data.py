"""Losses of runs whose data is random, unbroken and resumed, in one process: random_data.py FOLDER.

Samples are changed by random numbers of Python, NumPy and PyTorch when they are read, and the collator masks tokens at
random. Prints, as JSON by variant, the losses of an unbroken run and of one that is resumed from its checkpoint.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from trainyard.train import mend

VARIANTS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "no workers, accumulated": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    "two workers": {"dataloader_num_workers": 2},
    "three workers, before each has served": {"dataloader_num_workers": 3, "save_steps": 1},
    "two workers, resumed twice": {"dataloader_num_workers": 2, "save_steps": 1},
    "two workers, prefetching": {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 3},
    "two persistent workers": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "two persistent workers, at an epoch's end": {
        "dataloader_num_workers": 2, "dataloader_persistent_workers": True, "save_steps": 5, "max_steps": 8,
    },
    "no workers, at an epoch's end": {"save_steps": 5, "max_steps": 8},
}  # fmt: skip
"""An epoch has five steps."""


class Rows(Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids = [(3 * row + place) % 12 + 5 for place in range(12)]
        ids[random.randrange(12)] = 5 + random.randrange(12)
        ids[np.random.randint(12)] = 5 + np.random.randint(12)
        ids[int(torch.randint(12, ()))] = 5 + int(torch.randint(12, ()))
        return {"input_ids": ids}


def losses(folder: Path, tokenizer: Any, resume: Path | None, **options: Any) -> dict[int, float]:
    arguments = {
        "max_steps": 7, "save_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-2,
        "lr_scheduler_type": "constant", "use_cpu": True, "report_to": "none", "disable_tqdm": True,
        "dataloader_pin_memory": False, **options,
    }  # fmt: skip
    set_seed(random.randrange(1000) if resume is not None else 0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=17, max_position_embeddings=16, **sizes))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    trainer = Trainer(model, TrainingArguments(str(folder), **arguments), collator, Rows())
    trainer.train(resume_from_checkpoint=str(resume) if resume is not None else None)
    return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}


def main() -> None:
    mend.apply()
    folder, model = Path(sys.argv[1]), sys.argv[2]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    found = {}
    for number, (variant, options) in enumerate(VARIANTS.items()):
        output = folder / str(number)
        step = options.get("save_steps", 3)
        found[variant] = {"unbroken": losses(output, tokenizer, None, **options)}
        found[variant]["resumed"] = losses(folder / f"{number}b", tokenizer, output / f"checkpoint-{step}", **options)
        if "twice" in variant:
            later = folder / f"{number}b" / f"checkpoint-{step + 1}"
            found[variant]["resumed"] = losses(folder / f"{number}c", tokenizer, later, **options)
    print("FOUND", json.dumps(found), flush=True)


main()
