"""Batch arithmetic, as Trainer does it: what one optimizer step sees, and how many steps there are.

Source: transformers.Trainer.set_initial_training_values and accelerate's BatchSamplerShard (even batches).
"""

import math
from dataclasses import dataclass
from typing import Any

from trainyard.spec.blocks import mapping_of
from trainyard.spec.catalogue import arguments


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples and steps; step counts are None where the number of rows is not known."""

    per_device: int
    """Samples that a process sees in one forward pass."""
    accumulation: int
    world_size: int
    split: bool = False
    """per_device_train_batch_size counts for all processes together (accelerator_config.split_batches)."""
    rows: int | None = None
    """Rows of the training data."""
    steps_per_epoch: int | None
    total_steps: int | None

    @property
    def at_once(self) -> int:
        """Samples that all processes see in one forward pass."""
        return self.per_device * self.world_size

    @property
    def global_size(self) -> int:
        """Samples that one optimizer step sees, over all processes."""
        return self.at_once * self.accumulation

    def argument(self, per_device: int) -> int:
        """The per_device_train_batch_size by which each process sees so many samples in one forward pass."""
        return per_device * self.world_size if self.split else per_device


def value(given: dict[str, Any], name: str) -> Any:
    """An argument as given, or transformers' default."""
    return given.get(name, arguments()[name].default)


def splits_batches(given: dict[str, Any]) -> bool:
    """Whether accelerate deals each batch out to the processes, where Trainer gives each process its own."""
    return bool((mapping_of(given.get("accelerator_config")) or {}).get("split_batches"))


def batch(given: dict[str, Any], world_size: int, train_rows: int | None) -> Batch:
    """The arithmetic for a block of TrainingArguments. Rows are counted after the evaluation split.

    With split_batches per_device_train_batch_size must be a multiple of the processes (checks.check says so).
    """
    split = splits_batches(given)
    per_device = value(given, "per_device_train_batch_size")
    if split:
        per_device = per_device // world_size
    accumulation = value(given, "gradient_accumulation_steps")
    per_epoch = total = None
    if train_rows:
        shares = train_rows / (per_device * world_size)
        batches = math.floor(shares) if value(given, "dataloader_drop_last") else math.ceil(shares)
        per_epoch = math.ceil(batches / accumulation)
        total = math.ceil(value(given, "num_train_epochs") * per_epoch)
    max_steps = value(given, "max_steps")
    if max_steps > 0 and per_epoch != 0:
        total = max_steps
    return Batch(
        per_device=per_device,
        accumulation=accumulation,
        world_size=world_size,
        split=split,
        rows=train_rows,
        steps_per_epoch=per_epoch,
        total_steps=total,
    )


def keep_global(planned: Batch, global_size: int) -> tuple[int, int] | None:
    """Samples a process and accumulation by which a number of processes sees the same samples at each step.

    No process holds more samples than planned. None when the processes cannot share the batch equally.
    """
    share, left = divmod(global_size, planned.world_size)
    if left or not share:
        return None
    per_device = max(size for size in divisors(share) if size <= planned.per_device)
    return per_device, share // per_device


def divisors(number: int) -> list[int]:
    """What divides a number, in order."""
    return [each for each in range(1, number + 1) if number % each == 0]
