"""Losses of the same eight samples a step, for models that ignore num_items_in_batch, in a process of a group.

step_losses.py OUTPUT: prints, as JSON, loss and gradient norm of two steps and the evaluation's loss, by family
and by how the samples are split. "correct" is plain Trainer with a loss of its own that divides by the number of labels.
"""

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

from trainyard.train import mend

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3,
}  # fmt: skip
LLAMA = {**SIZES, "vocab_size": 32, "num_key_value_heads": 2, "pad_token_id": 0, "classifier_dropout": 0.0}
BEIT = {**SIZES, "image_size": 16, "patch_size": 4, "drop_path_rate": 0.0}
FAMILIES: dict[str, Any] = {
    "sequence": lambda: LlamaForSequenceClassification(LlamaConfig(**LLAMA)),
    "token": lambda: LlamaForTokenClassification(LlamaConfig(**LLAMA)),
    "image": lambda: BeitForImageClassification(BeitConfig(**BEIT)),
}
SPLITS = {1: {"8x1": (8, 1), "2x4": (2, 4), "1x8": (1, 8)}, 2: {"2 ranks": (4, 1), "2 ranks, 2x2": (2, 2)}}


def rows(family: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for row in range(16):
        if family == "image":
            made.append({"pixel_values": torch.rand(3, 16, 16, generator=generator), "labels": row % 3})
            continue
        ids = torch.randint(1, 32, (6,), generator=generator)
        tags = torch.tensor([(row + place) % 3 if place <= row % 5 else -100 for place in range(6)])
        made.append({"input_ids": ids, "labels": tags if family == "token" else row % 3})
    return made


def mean_over_labels(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
) -> torch.Tensor:
    items = num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum()
    return cross_entropy(outputs.logits.view(-1, 3), labels.view(-1), reduction="sum") / items


def measured(family: str, size: int, accumulation: int, **options: Any) -> dict[str, Any]:
    args = TrainingArguments(
        sys.argv[1], max_steps=2, per_device_train_batch_size=size, per_device_eval_batch_size=size,
        gradient_accumulation_steps=accumulation, logging_steps=1, learning_rate=1e-2, use_cpu=True,
        train_sampling_strategy="sequential", save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    set_seed(0)
    trainer = Trainer(FAMILIES[family](), args, train_dataset=rows(family), eval_dataset=rows(family)[:8], **options)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    steps = [row[name] for row in logged for name in ("loss", "grad_norm")]
    return {"steps": steps, "eval_loss": before}


def main() -> None:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    found: dict[str, Any] = {family: {} for family in FAMILIES}
    if size == 1:
        for family in FAMILIES:
            found[family]["correct"] = measured(family, 8, 1, compute_loss_func=mean_over_labels)
    mend.apply()
    for family in FAMILIES:
        for split, (batch, accumulation) in SPLITS[size].items():
            found[family][split] = measured(family, batch, accumulation)
    if os.environ.get("RANK", "0") == "0":
        print("FOUND", json.dumps(found), flush=True)
    if dist.is_initialized():  # else gloo's threads may still wait for the other rank when Python ends
        dist.barrier()
        dist.destroy_process_group()


main()
