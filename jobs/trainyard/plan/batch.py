"""Batch arithmetic, as Trainer does it: what one optimizer step sees, and how many steps there are.

Source: transformers.Trainer.set_initial_training_values and accelerate's BatchSamplerShard (even batches).
"""

import math
from dataclasses import dataclass
from typing import Any

from trainyard.spec.catalogue import arguments


@dataclass(frozen=True)
class Batch:
    """Samples and steps; step counts are None where the number of rows is not known."""

    per_device: int
    accumulation: int
    world_size: int
    steps_per_epoch: int | None
    total_steps: int | None

    @property
    def global_size(self) -> int:
        """Samples that one optimizer step sees, over all processes."""
        return self.per_device * self.accumulation * self.world_size


def value(given: dict[str, Any], name: str) -> Any:
    """An argument as given, or transformers' default."""
    return given.get(name, arguments()[name].default)


def batch(given: dict[str, Any], world_size: int, train_rows: int | None) -> Batch:
    """The arithmetic for a block of TrainingArguments. Rows are counted after the evaluation split."""
    per_device = value(given, "per_device_train_batch_size")
    accumulation = value(given, "gradient_accumulation_steps")
    per_epoch = total = None
    if train_rows:
        shards = train_rows / (per_device * world_size)
        batches = math.floor(shards) if value(given, "dataloader_drop_last") else math.ceil(shards)
        per_epoch = max(1, math.ceil(batches / accumulation))
        total = math.ceil(value(given, "num_train_epochs") * per_epoch)
    max_steps = value(given, "max_steps")
    return Batch(per_device, accumulation, world_size, per_epoch, max_steps if max_steps > 0 else total)


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
