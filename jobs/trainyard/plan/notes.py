"""The plan as words: a value with its reason a line, for the terminal, run.json and the model card."""

import math

from trainyard.plan.batch import Batch
from trainyard.plan.cautions import nothing_to_train
from trainyard.plan.memory import GIB
from trainyard.plan.plan import Plan


def notes(plan: Plan) -> dict[str, str]:
    """What was decided, by its name; each value says what and why."""
    rows = {
        "processes": f"{plan.world_size.value}: {plan.world_size.reason}",
        "strategy": f"{plan.strategy.value}: {plan.strategy.reason}",
        **{name: f"{line.value}: {line.reason}" for name, line in plan.labels.items()},
        **({"embeddings": f"{plan.embeddings.value}: {plan.embeddings.reason}"} if plan.embeddings is not None else {}),
        **(_batch(plan.batch) if plan.batch is not None else {}),
        "checkpoints": f"{plan.cadence.value}: {plan.cadence.reason}",
        **({"weights": f"{plan.weights.value}: {plan.weights.reason}"} if plan.weights is not None else {}),
        "model states": f"{_gib(plan.memory.value)} a process: {plan.memory.reason}"
        if plan.memory.value
        else plan.memory.reason,
        "staging": f"{plan.staging.value}: {plan.staging.reason}",
    }
    for name, choice in sorted(plan.chosen.items()):
        if choice.field == "checkpoint.every":  # the line of the checkpoints says it
            continue
        shown = "see `trainyard plan -o yaml`" if isinstance(choice.value, dict) else choice.value
        rows[name] = f"{shown}: {choice.reason}"
    return rows


def _batch(batch: Batch) -> dict[str, str]:
    split = " (split_batches: the processes share per_device_train_batch_size)" if batch.split else ""
    return {
        "global batch": f"{batch.global_size} samples: {batch.per_device} a process × {batch.world_size} processes × "
        f"{batch.accumulation} accumulation{split}; a resumed run keeps that of its checkpoint",
        "optimizer steps": _steps(batch),
    }


def _steps(batch: Batch) -> str:
    if batch.total_steps is None:
        return "known once the data is read"
    if batch.total_steps == 0:
        return f"0: {nothing_to_train(batch)}"
    if batch.steps_per_epoch is None:
        return f"{batch.total_steps} in all (max_steps)"
    return f"{batch.steps_per_epoch} an epoch, {batch.total_steps} in all"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{math.ceil(size / 1024**2)} MiB"
