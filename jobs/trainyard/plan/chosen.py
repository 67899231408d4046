"""The training arguments that the user did not write, each with the reason for its value."""

from typing import Any

from trainyard.plan import accelerate, strategy
from trainyard.plan.batch import Batch, value
from trainyard.plan.choice import Choice
from trainyard.spec.combinations import implied_eval_strategy
from trainyard.spec.model import Spec
from trainyard.spec.tasks import TASKS, greater_is_better

NEVER = 1_000_000_000
"""Steps that no run has."""

_LOGGED_EVERY = 10
_TIMES_A_RUN = 10
"""Saves and evaluations of a run, where nobody says how many."""

Chosen = dict[str, Choice[Any]]


def chosen(spec: Spec, arithmetic: Batch) -> Chosen:
    """The chosen arguments by their names; what the manifest has is not among them."""
    given = spec.training_arguments
    choices: Chosen = {**strategy.settings(spec), **accelerate.settings(spec)}
    choices |= _for_cpu(spec)
    choices["logging_nan_inf_filter"] = Choice(False, "the filter would hide a loss that has diverged")
    choices |= _logging(arithmetic)
    choices |= _best(spec)
    evaluation = _evaluation(spec, arithmetic)
    choices |= evaluation
    choices |= _saves(spec, arithmetic, _given_and(evaluation, given))
    return {name: choice for name, choice in choices.items() if name not in given}


def by_time(spec: Spec) -> str | None:
    """How often checkpoints are saved, by time; None where it is by steps, which trainingArguments may say."""
    given = spec.training_arguments
    by_steps = {"save_steps", "save_strategy"} & given.keys() or given.get("load_best_model_at_end")
    return None if by_steps else spec.checkpoint.every


def _for_cpu(spec: Spec) -> Chosen:
    if spec.workers.gpus:
        return {}
    return {
        "use_cpu": Choice(True, "workers.gpus is 0; DeepSpeed on CPU also needs it to count its batch right"),
        "dataloader_pin_memory": Choice(False, "pinned memory serves copies to a GPU, and there is none"),
    }


def _logging(arithmetic: Batch) -> Chosen:
    steps = arithmetic.total_steps
    every = max(1, min(_LOGGED_EVERY, steps // 10)) if steps else _LOGGED_EVERY
    return {"logging_steps": Choice(every, "transformers' default of 500 shows no loss in a short run")}


def _best(spec: Spec) -> Chosen:
    """Which way metric_for_best_model is better: transformers says "more" of all whose name does not end in "loss"."""
    metric, info = spec.training_arguments.get("metric_for_best_model"), TASKS.get(spec.task or "")
    better = greater_is_better(info, metric) if info is not None and isinstance(metric, str) else None
    if better is None:
        return {}
    return {"greater_is_better": Choice(better, f"{'more' if better else 'less'} of {metric} is better")}


def _evaluation(spec: Spec, arithmetic: Batch) -> Chosen:
    """When to evaluate, where the manifest says only that, or leaves the steps open."""
    given, choices = spec.training_arguments, Chosen()
    implied = implied_eval_strategy(given)
    if implied is not None:
        choices["eval_strategy"] = Choice(implied, _why_implied(given, implied))
    by_steps = given.get("eval_strategy", implied) == "steps"
    if by_steps and given.get("eval_steps") is None:
        choices["eval_steps"] = _evaluation_steps(given, arithmetic)
    return choices


def _why_implied(given: dict[str, Any], implied: str) -> str:
    if given.get("eval_steps") is not None:
        return f"do_eval with eval_steps: {given['eval_steps']}; do_eval alone evaluates nothing in Trainer"
    if given.get("load_best_model_at_end"):
        return f"do_eval, and the best checkpoint is looked for among those of save_strategy: {implied}"
    return "do_eval alone evaluates nothing in Trainer"


def _evaluation_steps(given: dict[str, Any], arithmetic: Batch) -> Choice[Any]:
    if "logging_steps" in given:
        return Choice(given["logging_steps"], "logging_steps, as transformers does where eval_steps is missing")
    if given.get("load_best_model_at_end") and "save_steps" in given:
        return Choice(given["save_steps"], "save_steps: the best checkpoint needs an evaluation at each save")
    return _share_of_run(arithmetic, value({}, "save_steps"))


def _saves(spec: Spec, arithmetic: Batch, known: dict[str, Any]) -> Chosen:
    if by_time(spec) is not None:
        reason = "checkpoint.every: saves are by time; the last step is saved all the same"
        return {"save_steps": Choice(NEVER, reason, field="checkpoint.every")}
    if known.get("save_strategy", "steps") != "steps":
        return {}
    if known.get("load_best_model_at_end"):
        reason = "eval_steps: the best checkpoint needs an evaluation at each save"
        evaluated = known.get("eval_steps")
        return {"save_steps": Choice(evaluated, reason)} if evaluated is not None else {}
    return {"save_steps": _share_of_run(arithmetic, value({}, "save_steps"))}


def _share_of_run(arithmetic: Batch, default: int) -> Choice[Any]:
    steps = arithmetic.total_steps
    if not steps:
        return Choice(default, "transformers' default")
    often = max(1, min(default, -(-steps // _TIMES_A_RUN)))
    return Choice(often, f"a tenth of the {steps} steps, at most {default}")


def _given_and(choices: Chosen, given: dict[str, Any]) -> dict[str, Any]:
    return {**{name: choice.value for name, choice in choices.items()}, **given}
