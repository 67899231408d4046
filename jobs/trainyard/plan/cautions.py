"""What a job may do and hardly means: arguments that together train nothing, save nothing or show nothing."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from trainyard.plan.batch import Batch, value
from trainyard.plan.chosen import NEVER
from trainyard.spec.model import Spec


def cautions(spec: Spec, arguments: dict[str, Any], arithmetic: Batch) -> Iterator[str]:
    """A sentence for each, with the field and the fix. Nothing where the number of steps is not known."""
    steps = arithmetic.total_steps
    if steps is None:
        return
    if steps == 0:
        yield nothing_to_train(arithmetic)
        return
    for caution in _CAUTIONS:
        message = caution(spec, arguments, steps)
        if message is not None:
            yield f"spec.{message}"


def nothing_to_train(arithmetic: Batch) -> str:
    """Why a run has no step."""
    return (
        f"spec.trainingArguments.dataloader_drop_last: {arithmetic.rows} rows are fewer than the {arithmetic.at_once} "
        "that the processes see at once, and all of them are dropped: 0 steps. Remove it, or lower "
        "per_device_train_batch_size"
    )


def _warmup(spec: Spec, arguments: dict[str, Any], steps: int) -> str | None:
    warmup = value(arguments, "warmup_steps")
    if warmup < 1 or warmup < steps:
        return None
    return (
        f"trainingArguments.warmup_steps: {warmup:g} steps of warm-up in a run of {steps}: the learning rate never "
        "reaches its value. Write a smaller number, or a share below 1 such as 0.1"
    )


def _evaluation(spec: Spec, arguments: dict[str, Any], steps: int) -> str | None:
    every = _every(arguments, "eval_strategy", "eval_steps")
    if every is None or every <= steps:
        return None
    return (
        f"trainingArguments.eval_steps: {every} is more than the {steps} steps of the run: nothing is evaluated "
        "before its end. Write a smaller number, or a share below 1 such as 0.1"
    )


def _saves(spec: Spec, arguments: dict[str, Any], steps: int) -> str | None:
    every = _every(arguments, "save_strategy", "save_steps")
    if every is None or every <= steps or every == NEVER:
        return None
    best = " and the best one cannot be told" if arguments.get("load_best_model_at_end") else ""
    return (
        f"trainingArguments.save_steps: {every} is more than the {steps} steps of the run: only the last step is "
        f"saved, a fault loses everything since the start{best}. Write a smaller number, or a share below 1 such as 0.1"
    )


def _kept(spec: Spec, arguments: dict[str, Any], steps: int) -> str | None:
    every, kept = _every(arguments, "save_strategy", "save_steps"), spec.checkpoint.keep_every
    if every is None or every == NEVER or kept is None or every > steps:
        return None
    if math.lcm(every, kept) <= steps:
        return None
    return (
        f"checkpoint.keepEvery: {kept} keeps nothing: saves are every {every} steps, and no step of the {steps} is a "
        f"multiple of both. Write a multiple of {every}"
    )


def _logging(spec: Spec, arguments: dict[str, Any], steps: int) -> str | None:
    every = _every(arguments, "logging_strategy", "logging_steps")
    if every is None or every <= steps:
        return None
    return (
        f"trainingArguments.logging_steps: {every} is more than the {steps} steps of the run: no loss is shown. Write "
        "a smaller number"
    )


def _learning_rate(spec: Spec, arguments: dict[str, Any], steps: int) -> str | None:
    if value(arguments, "learning_rate") != 0:
        return None
    return "trainingArguments.learning_rate: 0 changes no weight. Write a number such as 5e-5"


def _every(arguments: dict[str, Any], strategy: str, steps: str) -> int | None:
    """Whole steps between two of a kind; None where they do not come by steps, or by a share of all."""
    every = value(arguments, steps)
    if value(arguments, strategy) != "steps" or every is None or every < 1:
        return None
    return int(every)


_CAUTIONS: tuple[Callable[[Spec, dict[str, Any], int], str | None], ...] = (
    _warmup,
    _evaluation,
    _saves,
    _kept,
    _logging,
    _learning_rate,
)
