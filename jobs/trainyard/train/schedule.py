"""What a resumed run takes of its checkpoint's optimizer, and what of the manifest.

A checkpoint holds more of an optimizer than its moments: learning rate, weight decay, betas and the schedule's state.
Loaded as they are, they would win over a manifest that has changed since. So the moments and the number of steps are
the checkpoint's, and the values that trainingArguments set are the manifest's. A schedule that is a function of the
step, as all of transformers' but two are, continues as if it had been the run's from its first step.

`reduce_lr_on_plateau`, `greedy` and schedules of a user's own derive their rate from what has happened so far: they
keep the checkpoint's, and a note says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

_COEFFICIENTS = ("weight_decay", "betas", "eps", "momentum")
"""Keys of an optimizer's parameter groups that arguments set. Others may be state: schedule-free optimizers count in
them."""


@dataclass(frozen=True)
class Values:
    """What the manifest says, as a new optimizer and a new scheduler have it."""

    groups: list[dict[str, Any]]
    """The coefficients of each parameter group, and its rate by "lr"."""
    base_rates: list[float] | None
    """The learning rate of each group that the schedule multiplies; None where it is no function of the step."""


def of_manifest(trainer: Any) -> Values:
    """The values of a Trainer whose optimizer and scheduler have just been made."""
    keys = (*_COEFFICIENTS, "lr")
    groups = [{key: group[key] for key in keys if key in group} for group in trainer.optimizer.param_groups]
    scheduler = _scheduler(trainer)
    return Values(groups, list(scheduler.base_lrs) if isinstance(scheduler, LambdaLR) else None)


def load(trainer: Any, original: Callable[..., None], *args: Any) -> None:
    """Trainer._load_optimizer_and_scheduler, also where the checkpoint's schedule is of another kind."""
    scheduler = _scheduler(trainer)
    if scheduler is None:
        original(trainer, *args)
        return
    load_state = scheduler.load_state_dict
    known = scheduler.state_dict().keys()

    def load_same_kind(state: dict[str, Any]) -> None:
        if state.keys() == known:
            load_state(state)
        else:
            scheduler.last_epoch = trainer.state.global_step

    scheduler.load_state_dict = load_same_kind
    try:
        original(trainer, *args)
    finally:
        del scheduler.load_state_dict  # the class has its own, and state_dict() holds every attribute of the object


def apply(trainer: Any, values: Values) -> list[str]:
    """Give a resumed optimizer and its schedule the manifest's values. Returns what differed, in words."""
    groups = trainer.optimizer.param_groups
    scheduler = _scheduler(trainer)
    changes = [change for group, wanted in zip(groups, values.groups, strict=True) for change in _set(group, wanted)]
    if values.base_rates is None:
        if groups[0]["lr"] != values.groups[0]["lr"]:
            changes.append(
                f"learning_rate stays {_number(groups[0]['lr'])}, as in the checkpoint: {type(scheduler).__name__} "
                "derives it from earlier steps"
            )
        return list(dict.fromkeys(changes))
    scheduler.base_lrs = values.base_rates
    step = scheduler.last_epoch
    rates = [base * factor(step) for base, factor in zip(values.base_rates, scheduler.lr_lambdas, strict=True)]
    for group, base, rate in zip(groups, values.base_rates, rates, strict=True):
        if _number(group["lr"]) != _number(rate):
            changes.append(f"the learning rate at this step was {_number(group['lr'])}, now {_number(rate)}")
        group["initial_lr"] = base
        _set_rate(group, rate)
    scheduler._last_lr = rates
    return list(dict.fromkeys(changes))


def _set(group: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for key in _COEFFICIENTS:
        if key in wanted and group[key] != wanted[key]:
            yield f"{key} was {group[key]}, now {wanted[key]}"
            group[key] = wanted[key]


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):  # a compiled or captured step holds on to the tensor
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _number(rate: Any) -> str:
    return f"{float(rate):.6g}"


def _scheduler(trainer: Any) -> Any:
    """The scheduler without what accelerate has put around it."""
    return getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
