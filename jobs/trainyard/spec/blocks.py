"""Arguments that hold names of their own: of the schedule, the optimizer, the accelerator and the trackers."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from trainyard.spec import library
from trainyard.spec.hints import did_you_mean

Mistake = tuple[tuple[str, ...], str]

_ONE_OF_MIN_LR = ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
_CURVES = ("linear", "cosine", "1-sqrt")
_SCHEDULE_CHOICES = {
    "warmup_type": _CURVES,
    "decay_type": _CURVES,
    "mode": ("min", "max"),
    "threshold_mode": ("rel", "abs"),
}
_ACCUMULATION = ("num_steps", "adjust_scheduler", "sync_with_dataloader", "sync_each_batch")


def check(given: dict[str, Any]) -> Iterator[Mistake]:
    """Every mistake in the blocks of a trainingArguments block whose values have the right types."""
    yield from _schedule(given)
    yield from _optimizer(given)
    yield from _accelerator(given)
    yield from _named(given, "report_to", ("all", "none", *library.names("report_to")))
    yield from _named(given, "debug", library.names("debug"))
    yield from _named(given, "torch_compile_backend", library.names("torch_compile_backend"))
    yield from _named(given, "torch_compile_mode", library.names("torch_compile_mode"))


def mapping_of(value: Any) -> dict[str, Any] | None:
    """The mapping that a value is or that its JSON holds; None where it holds none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _schedule(given: dict[str, Any]) -> Iterator[Mistake]:
    where = "lr_scheduler_kwargs"
    name = given.get("lr_scheduler_type", "linear")
    schedule = library.schedules().get(name)
    if schedule is None:
        return
    written = given.get(where)
    kwargs = mapping_of(written) or {}
    for key in kwargs:
        if key not in schedule.known:
            yield (where, key), f"{name} takes no {key}. {did_you_mean(key, schedule.known)}"
    place = (where,) if written is not None else ("lr_scheduler_type",)
    for key in schedule.required:
        if key not in kwargs:
            yield place, f"{name} needs {key}: add lr_scheduler_kwargs: {{{key}: …}}"
    if name in _ONE_OF_MIN_LR:
        chosen = [key for key in ("min_lr", "min_lr_rate") if kwargs.get(key) is not None]
        if not chosen:
            yield place, f"{name} needs min_lr or min_lr_rate: add lr_scheduler_kwargs: {{min_lr_rate: 0.1}}"
        elif len(chosen) == 2:
            yield place, f"{name} takes min_lr or min_lr_rate, and both are written; keep one"
    yield from _schedule_values(given, name, kwargs)


def _schedule_values(given: dict[str, Any], name: str, kwargs: dict[str, Any]) -> Iterator[Mistake]:
    where = "lr_scheduler_kwargs"
    for key, choices in _SCHEDULE_CHOICES.items():
        if key in kwargs and kwargs[key] not in choices:
            yield (where, key), f"{kwargs[key]!r} is none of {', '.join(choices)}"
    factor = kwargs.get("factor")
    if isinstance(factor, int | float) and factor >= 1:
        yield (where, "factor"), f"{factor} would not lower the learning rate; write a number below 1"
    end, rate = kwargs.get("lr_end", 1e-7), given.get("learning_rate", 5e-5)
    if name == "polynomial" and isinstance(end, int | float) and end >= rate:
        place = (where, "lr_end") if "lr_end" in kwargs else ("learning_rate",)
        yield place, f"polynomial goes down from learning_rate ({rate}) to lr_end ({end}); write a smaller lr_end"


def _optimizer(given: dict[str, Any]) -> Iterator[Mistake]:
    name = given.get("optim", "adamw_torch_fused")
    optimizer = library.optimizers().get(name)
    if optimizer is None:
        return
    yield from _optimizer_arguments(given.get("optim_args"), name, optimizer)
    if optimizer.target_modules and given.get("optim_target_modules") is None:
        yield ("optim",), f"{name} needs optim_target_modules: write all-linear, or the names of modules"
    if optimizer.layerwise and given.get("gradient_accumulation_steps", 1) != 1:
        message = f"{name} steps in the backward pass of each layer and cannot accumulate gradients; write 1"
        yield ("gradient_accumulation_steps",), message


def _optimizer_arguments(written: Any, name: str, optimizer: library.Optimizer) -> Iterator[Mistake]:
    where = ("optim_args",)
    for pair in str(written).replace(" ", "").split(",") if written else ():
        key, equals, text = pair.partition("=")
        if not equals or "=" in text or not key:
            yield where, f"{pair!r} is no key=value; write optim_args: key=value,key=value"
        elif optimizer.any_arguments:
            continue
        elif key not in optimizer.arguments:
            yield where, f"{name} reads no {key}. {did_you_mean(key, tuple(optimizer.arguments))}"
        elif not _reads_as(text, optimizer.arguments[key]):
            yield where, f"{key}={text}: {text} is no {optimizer.arguments[key]}"


def _reads_as(text: str, kind: str) -> bool:
    try:
        {"int": int, "float": float, "str": str}[kind](text)
    except ValueError:
        return False
    return True


def _accelerator(given: dict[str, Any]) -> Iterator[Mistake]:
    where = "accelerator_config"
    config = mapping_of(given.get(where)) or {}
    known = library.names("accelerator_config")
    for key in config:
        if key not in known:
            yield (where, key), f"unknown key. {did_you_mean(key, known)}"
    if config.get("dispatch_batches"):
        message = "rows of different lengths cannot be put into one batch, and each process reads its own rows"
        yield (where, "dispatch_batches"), f"cannot work here: {message}. Remove it"
    if config.get("even_batches") is False:
        message = "processes with fewer batches than others would leave these waiting at the end of an epoch"
        yield (where, "even_batches"), f"cannot work here: {message}. Remove it"
    if config.get("use_configured_state"):
        yield (where, "use_configured_state"), "cannot work here: no state was configured before. Remove it"
    yield from _accumulation(config.get("gradient_accumulation_kwargs"))


def _accumulation(kwargs: Any) -> Iterator[Mistake]:
    where = ("accelerator_config", "gradient_accumulation_kwargs")
    if kwargs is None:
        return
    if not isinstance(kwargs, dict):
        yield where, "write it as a mapping: {sync_each_batch: true}"
        return
    for key in kwargs:
        if key not in _ACCUMULATION:
            yield (*where, key), f"unknown key. {did_you_mean(key, _ACCUMULATION)}"
    if "num_steps" in kwargs:
        yield (*where, "num_steps"), "it has a place of its own: write gradient_accumulation_steps"


def _named(given: dict[str, Any], argument: str, known: Sequence[str]) -> Iterator[Mistake]:
    """A word, several words, or a list of words that transformers knows."""
    written = given.get(argument)
    words = written.split() if isinstance(written, str) else written or []
    for word in words:
        if str(word) not in known:
            yield (argument,), f"{word!r} is unknown. {did_you_mean(str(word), known)}"
