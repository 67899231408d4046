"""Checks spec.trainingArguments against the catalogue, without transformers.

Each name is looked at alone (`answers`, and the table of values here), then those that must fit together
(`combinations`), then the blocks that hold names of their own (`blocks`). Nothing is ignored silently.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainyard.spec import blocks, combinations
from trainyard.spec.answers import OWNED, REMOVED, answer
from trainyard.spec.catalogue import Argument, arguments

Mistake = tuple[tuple[str, ...], str]
"""A path inside trainingArguments, and what is wrong there with the fix."""


@dataclass(frozen=True)
class Bound:
    """The numbers that an argument may be."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def broken(self, number: float) -> str | None:
        """What is wrong with a number; None where nothing is."""
        if self.least is not None and number < self.least:
            return f"is too small; {_plain(self.least)} is the least"
        if self.above is not None and number <= self.above:
            return f"is too small; write a number above {_plain(self.above)}"
        if self.most is not None and number > self.most:
            return f"is too large; {_plain(self.most)} is the most"
        if self.below is not None and number >= self.below:
            return f"is too large; write a number below {_plain(self.below)}"
        return None


_NOT_NEGATIVE, _POSITIVE, _ONE_OR_MORE = Bound(least=0), Bound(above=0), Bound(least=1)
_SEED = Bound(least=0, most=2**32 - 1)  # numpy.random.seed

BOUNDS: dict[str, Bound] = {
    "per_device_train_batch_size": _ONE_OR_MORE,
    "per_device_eval_batch_size": _ONE_OR_MORE,
    "gradient_accumulation_steps": _ONE_OR_MORE,
    "eval_accumulation_steps": _ONE_OR_MORE,
    "save_total_limit": _ONE_OR_MORE,
    "torch_empty_cache_steps": _ONE_OR_MORE,
    "dataloader_prefetch_factor": _ONE_OR_MORE,
    "ddp_timeout": _ONE_OR_MORE,
    "max_steps": Bound(least=-1),
    "num_train_epochs": _POSITIVE,
    "save_steps": _POSITIVE,
    "logging_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _NOT_NEGATIVE,
    "learning_rate": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "adam_epsilon": _NOT_NEGATIVE,
    "adam_beta1": Bound(least=0, below=1),
    "adam_beta2": Bound(least=0, below=1),
    "max_grad_norm": _NOT_NEGATIVE,
    "label_smoothing_factor": Bound(least=0, most=1),
    "seed": _SEED,
    "data_seed": _SEED,
    "dataloader_num_workers": _NOT_NEGATIVE,
}
"""What transformers, torch or the arithmetic of a run refuses, by argument."""

_STEPS = ("save_steps", "logging_steps", "eval_steps")
_MOST_INTEGER = 1e18


def check(values: dict[str, Any]) -> Iterator[Mistake]:
    """Every mistake in a trainingArguments block, as (path inside the block, message)."""
    sound: dict[str, Any] = {}
    for name, value in values.items():
        message = _alone(name, value)
        if message is not None:
            yield (name,), message
        elif name not in OWNED:
            sound[name] = _normalised(arguments()[name], value)
    broken = values.keys() - sound.keys()
    for conflict in combinations.check({**_meant(values), **sound}):
        if not conflict.reads & broken:
            yield (conflict.name,), conflict.message
    yield from blocks.check(sound)


def _meant(values: dict[str, Any]) -> dict[str, Any]:
    """What names of transformers 4 say, under the names of version 5, so that one mistake is not answered twice."""
    meant = {}
    for name, removed in REMOVED.items():
        if name not in values or removed.successor is None:
            continue
        argument = arguments()[removed.successor]
        if _wrong_value(argument, values[name]) is None:
            meant[argument.name] = _normalised(argument, values[name])
    return meant


def normalised(values: dict[str, Any]) -> dict[str, Any]:
    """The block with YAML's accidents mended: an integral float for an int, and `no`, which YAML reads as false."""
    return {name: _normalised(arguments()[name], value) for name, value in values.items()}


def _normalised(argument: Argument, value: Any) -> Any:
    if value is False and "bool" not in argument.types and "no" in argument.choices:
        return "no"
    if isinstance(value, float) and value.is_integer() and "float" not in argument.types and "int" in argument.types:
        return int(value)
    return value


def _alone(name: str, value: Any) -> str | None:
    """What is wrong with an argument whatever the others say; None where nothing is."""
    message = answer(name, value)
    if message is not None or name in REMOVED:
        return message
    if name not in arguments():
        near = difflib.get_close_matches(name, [*arguments(), *REMOVED], n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]}?" if near else "`trainyard explain trainingArguments` lists all."
        return f"unknown argument. {hint}"
    if name in OWNED:
        return None
    return _wrong_value(arguments()[name], value)


def _wrong_value(argument: Argument, value: Any) -> str | None:
    value = _normalised(argument, value)
    for rule in (_wrong_type, _no_mapping, _out_of_bounds, _broken_steps, _too_large, _no_choice):
        message = rule(argument, value)
        if message is not None:
            return message
    return None


def _wrong_type(argument: Argument, value: Any) -> str | None:
    kind = _kind(value)
    if kind in argument.types or (kind == "int" and "float" in argument.types):
        return None
    wanted = " or ".join(kind for kind in argument.types if kind != "null")
    found = f"{_shown(value)} is {_article(kind)}"
    return f"{found}, but {_article(wanted)} is wanted{_quoted_number(value, argument)}"


def _no_mapping(argument: Argument, value: Any) -> str | None:
    if "dict" in argument.types and isinstance(value, str) and blocks.mapping_of(value) is None:
        return f"{_shown(value)} is no mapping; write it as {argument.name}: {{key: value}}"
    return None


def _out_of_bounds(argument: Argument, value: Any) -> str | None:
    bound = BOUNDS.get(argument.name)
    if bound is None or not _is_number(value):
        return None
    broken = bound.broken(value)
    return None if broken is None else f"{_shown(value)} {broken}"


def _broken_steps(argument: Argument, value: Any) -> str | None:
    if argument.name in _STEPS and isinstance(value, float) and value > 1 and not value.is_integer():
        return f"{_shown(value)} is no whole number of steps; below 1 it is a share of all of them"
    return None


def _too_large(argument: Argument, value: Any) -> str | None:
    if "int" in argument.types and _is_number(value) and abs(value) > _MOST_INTEGER:
        return f"{_shown(value)} is too large"
    return None


def _no_choice(argument: Argument, value: Any) -> str | None:
    if not argument.choices or not isinstance(value, str) or value in argument.choices:
        return None
    near = difflib.get_close_matches(value, argument.choices, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else ""
    return f"{value!r} is none of {', '.join(argument.choices)}. {hint}".rstrip()


def _quoted_number(value: Any, argument: Argument) -> str:
    if isinstance(value, str) and ("float" in argument.types or "int" in argument.types):
        try:
            float(value)
        except ValueError:
            return ""
        return "; remove the quotes"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}
    return names.get(type(value), "null")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
