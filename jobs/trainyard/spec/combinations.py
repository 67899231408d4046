"""Training arguments that must fit together: what TrainingArguments, Trainer or torch refuse of several at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trainyard.spec.catalogue import arguments

Values = dict[str, Any]
"""Every argument by its name, with transformers' defaults where the manifest has none."""


@dataclass(frozen=True)
class Rule:
    """Arguments that do not fit together."""

    names: tuple[str, ...]
    """What the rule reads. The mistake stands at the first of them that is written."""
    broken: Callable[[Values], bool]
    message: str


@dataclass(frozen=True)
class Conflict:
    """A broken rule: the argument where it is shown, all that the rule reads, and the message."""

    name: str
    reads: frozenset[str]
    message: str


def check(given: dict[str, Any]) -> Iterator[Conflict]:
    """The rules that a block breaks. Its values are sound each for itself."""
    defaults = {name: argument.default for name, argument in arguments().items()}
    whole = {**defaults, "eval_strategy": implied_eval_strategy(given) or "no", **given}
    for rule in RULES:
        written = [name for name in rule.names if name in given]
        if written and rule.broken(whole):
            yield Conflict(written[0], frozenset(rule.names), rule.message)
    if _steps_do_not_meet(given):
        save, evaluate = given["save_steps"], given.get("eval_steps", given.get("logging_steps"))
        message = (
            f"load_best_model_at_end needs an evaluation at each save: {save} is no multiple of {evaluate}, the steps "
            "between evaluations"
        )
        reads = frozenset({"save_steps", "eval_steps", "logging_steps", "save_strategy", "eval_strategy"})
        yield Conflict("save_steps", reads, message)


def implied_eval_strategy(given: dict[str, Any]) -> str | None:
    """The eval_strategy that do_eval stands for; None where the manifest has its own, or evaluates nothing.

    do_eval alone evaluates nothing in Trainer. With eval_steps it can only mean these; where the best checkpoint is
    looked for, saves and evaluations must meet.
    """
    if "eval_strategy" in given or not given.get("do_eval"):
        return None
    if given.get("eval_steps") is not None:
        return "steps"
    save = given.get("save_strategy", "steps")
    return save if given.get("load_best_model_at_end") and save in ("steps", "epoch") else "epoch"


def _evaluates(values: Values) -> bool:
    return bool(values["eval_strategy"] != "no")


def _load_best_without_evaluation(a: Values) -> bool:
    return bool(a["load_best_model_at_end"]) and not _evaluates(a)


def _strategies_differ(a: Values) -> bool:
    allowed = ("best", a["eval_strategy"])
    return bool(a["load_best_model_at_end"]) and _evaluates(a) and a["save_strategy"] not in allowed


def _steps_do_not_meet(given: dict[str, Any]) -> bool:
    """Whether a save falls between two evaluations, of what the manifest says itself.

    transformers takes logging_steps for eval_steps; what neither says the plan chooses so that it fits.
    """
    save, evaluate = given.get("save_steps"), given.get("eval_steps", given.get("logging_steps"))
    by_steps = (
        given.get("eval_strategy", implied_eval_strategy(given)) == "steps"
        and given.get("save_strategy", "steps") == "steps"
    )
    if not given.get("load_best_model_at_end") or not by_steps or save is None or not evaluate:
        return False
    if (save < 1) != (evaluate < 1):
        return True
    scale = 1_000_000  # transformers compares shares as whole numbers
    return bool((save * scale) % (evaluate * scale))


RULES = (
    Rule(
        ("fp16", "bf16"),
        lambda a: bool(a["fp16"] and a["bf16"]),
        "fp16 and bf16 exclude each other; keep bf16 where the GPU has it",
    ),
    Rule(
        ("fp16_full_eval", "bf16_full_eval"),
        lambda a: bool(a["fp16_full_eval"] and a["bf16_full_eval"]),
        "fp16_full_eval and bf16_full_eval exclude each other; keep bf16_full_eval where the GPU has bf16",
    ),
    Rule(
        ("activation_checkpointing", "gradient_checkpointing"),
        lambda a: a["activation_checkpointing"] is not None and a["gradient_checkpointing"] is not None,
        "gradient_checkpointing is the old name of activation_checkpointing; keep one",
    ),
    Rule(
        ("load_best_model_at_end", "eval_strategy"),
        _load_best_without_evaluation,
        "load_best_model_at_end needs evaluations to compare: set eval_strategy to the value of save_strategy",
    ),
    Rule(
        ("load_best_model_at_end", "save_strategy", "eval_strategy"),
        _strategies_differ,
        "load_best_model_at_end needs the same value in save_strategy and eval_strategy, so that the best evaluated "
        "step has a checkpoint",
    ),
    Rule(
        ("save_strategy", "metric_for_best_model"),
        lambda a: (
            a["save_strategy"] == "best" and a["metric_for_best_model"] is None and not a["load_best_model_at_end"]
        ),
        "save_strategy: best needs a metric to compare: add metric_for_best_model",
    ),
    Rule(
        ("save_strategy", "eval_strategy"),
        lambda a: a["save_strategy"] == "best" and not _evaluates(a),
        "save_strategy: best saves after evaluations: add eval_strategy: steps or epoch",
    ),
    Rule(
        ("lr_scheduler_type", "eval_strategy"),
        lambda a: a["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy") and not _evaluates(a),
        "this schedule follows the metric of evaluations: add eval_strategy: steps or epoch",
    ),
    Rule(
        ("eval_steps", "eval_strategy"),
        lambda a: a["eval_steps"] is not None and not _evaluates(a),
        "eval_steps does nothing while eval_strategy is `no`; add eval_strategy: steps",
    ),
    Rule(
        ("metric_for_best_model", "prediction_loss_only"),
        lambda a: bool(a["prediction_loss_only"]) and a["metric_for_best_model"] not in (None, "loss", "eval_loss"),
        "prediction_loss_only leaves only the loss to compare: remove it, or write metric_for_best_model: loss",
    ),
    Rule(
        ("dataloader_prefetch_factor", "dataloader_num_workers"),
        lambda a: a["dataloader_prefetch_factor"] is not None and not a["dataloader_num_workers"],
        "dataloader_prefetch_factor needs processes that load: add dataloader_num_workers: 2",
    ),
    Rule(
        ("dataloader_persistent_workers", "dataloader_num_workers"),
        lambda a: bool(a["dataloader_persistent_workers"]) and not a["dataloader_num_workers"],
        "dataloader_persistent_workers needs processes that load: add dataloader_num_workers: 2",
    ),
    Rule(
        ("dataloader_multiprocessing_context", "dataloader_num_workers"),
        lambda a: a["dataloader_multiprocessing_context"] is not None and not a["dataloader_num_workers"],
        "dataloader_multiprocessing_context needs processes that load: add dataloader_num_workers: 2",
    ),
    Rule(
        ("max_steps",),
        lambda a: a["max_steps"] == 0,
        "0 steps train nothing; write -1 for whole epochs or the number of steps",
    ),
)
"""The rules, in the order in which their mistakes are shown at one line."""
