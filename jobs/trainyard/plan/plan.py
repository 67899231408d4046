"""The plan: everything that follows from the manifest and was not written in it, with the reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainyard.errors import JobError
from trainyard.plan import memory, strategy
from trainyard.plan.batch import Batch, batch, value
from trainyard.plan.cautions import cautions
from trainyard.plan.choice import Choice
from trainyard.plan.chosen import by_time, chosen
from trainyard.plan.facts import Facts
from trainyard.plan.modelcheck import truncation
from trainyard.plan.weights import weights
from trainyard.spec.answers import OWNED
from trainyard.spec.model import Spec, TrainerJob


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job will do."""

    world_size: Choice[int]
    batch: Batch | None
    """None for a script, whose arguments are its own; so are the strategy and the arguments then."""
    strategy: Choice[str]
    chosen: dict[str, Choice[Any]]
    """TrainingArguments that the user did not write."""
    cadence: Choice[str]
    weights: Choice[str] | None
    """The dtype of the weights while they are trained; None for a script."""
    memory: Choice[int | None]
    every: str | None
    """How often a checkpoint is saved, where it is by time."""
    staging: Choice[str]
    """Where checkpoints lie while they are uploaded: Memory or Disk."""
    labels: Mapping[str, Choice[str]]
    """What the labels are, where that is known before the data is read for training."""
    embeddings: Choice[str] | None
    """Those that the model gets for added tokens; None where there are none, or that is not known."""
    warnings: tuple[str, ...]
    arguments: dict[str, Any]
    """TrainingArguments in full, as they are passed on (output_dir excepted)."""


def plan(job: TrainerJob, facts: Facts) -> Plan:
    """The plan of a job that check() found nothing wrong with. Raises JobError when this machine cannot hold it."""
    spec = job.spec
    processes = spec.workers.processes
    world_size = spec.workers.count * processes
    size = Choice(world_size, f"{spec.workers.count} workers × {processes} processes")
    if spec.script is not None:
        return _plan_of_script(spec, facts, size)
    arithmetic = batch(spec.training_arguments, world_size, facts.train_rows)
    choices = chosen(spec, arithmetic)
    arguments = _arguments(spec, choices)
    mixed = bool(arguments.get("bf16") or arguments.get("fp16"))
    assert spec.model is not None
    dtype = weights(spec.model, facts.stored_dtype)
    states = memory.model_states(spec, facts, world_size, mixed, dtype.value)
    warnings = (
        *_doubts(spec, arguments, arithmetic),
        memory.verdict(spec, facts, states, world_size),
        memory.staging_warning(spec, facts, world_size),
    )
    if problem := memory.staging_problem(spec, facts, world_size):
        raise JobError(f"spec.checkpoint.staging: {problem}")
    return Plan(
        world_size=size,
        batch=arithmetic,
        strategy=Choice(strategy.label(spec), "spec.strategy" if spec.strategy.ddp is None else _ddp_reason(spec)),
        chosen=choices,
        every=by_time(spec),
        cadence=_cadence(spec, arguments, arithmetic, choices),
        weights=dtype,
        memory=states,
        staging=memory.staging(spec, facts, world_size),
        labels=facts.labels,
        embeddings=facts.embeddings,
        warnings=tuple(warning for warning in warnings if warning),
        arguments=arguments,
    )


def _plan_of_script(spec: Spec, facts: Facts, size: Choice[int]) -> Plan:
    """The plan of a script, whose own code decides most of it."""
    own = "the script's own TrainingArguments"
    return Plan(
        world_size=size,
        batch=None,
        strategy=Choice("script", own),
        chosen={},
        cadence=Choice("as the script saves", own),
        weights=None,
        memory=Choice(None, "not known: the script loads its model"),
        every=spec.checkpoint.every,
        staging=memory.staging(spec, facts, None),
        labels={},
        embeddings=None,
        warnings=(),
        arguments={},
    )


def doubts(job: TrainerJob, facts: Facts) -> tuple[str, ...]:
    """What a job may do and hardly means, by the manifest and what is known of its data; a script's is not known."""
    spec = job.spec
    if spec.script is not None:
        return ()
    arithmetic = batch(spec.training_arguments, spec.workers.count * spec.workers.processes, facts.train_rows)
    return _doubts(spec, _arguments(spec, chosen(spec, arithmetic)), arithmetic)


def _doubts(spec: Spec, arguments: dict[str, Any], arithmetic: Batch) -> tuple[str, ...]:
    return (*cautions(spec, arguments, arithmetic), *truncation(spec))


def _arguments(spec: Spec, choices: dict[str, Choice[Any]]) -> dict[str, Any]:
    """What is handed to TrainingArguments: what was chosen, and what the manifest says and may say."""
    own = (*OWNED, "save_total_limit")
    given = {name: item for name, item in spec.training_arguments.items() if name not in own}
    return {**{name: choice.value for name, choice in choices.items()}, **given}


def keep_last(spec: Spec) -> int:
    """How many of the newest checkpoints are kept; TrainingArguments.save_total_limit is the same wish."""
    limit = spec.training_arguments.get("save_total_limit")
    return limit if isinstance(limit, int) and limit > 0 else spec.checkpoint.keep_last


def _ddp_reason(spec: Spec) -> str:
    return "spec.strategy" if "strategy" in spec.model_fields_set else "no strategy was written, and ddp is the default"


def _cadence(spec: Spec, arguments: dict[str, Any], arithmetic: Batch, chosen: dict[str, Choice[Any]]) -> Choice[str]:
    if (timed := by_time(spec)) == "Auto":
        return Choice(
            "by time",
            "checkpoint.every: Auto. As often as saves cost no more than the work that a fault undoes (Young/Daly), by "
            "what saves are measured to cost, for one fault of a worker in 30 days; not more often than a commit takes "
            "or 15 s. The first after 60 s; then what was chosen is told",
        )
    if timed is not None:
        return Choice(f"every {timed}", "checkpoint.every")
    found = _by_steps(arguments, arithmetic, chosen)
    if spec.checkpoint.every is None:
        return found
    return replace(found, reason=f"{found.reason}; checkpoint.every gives way to it")


def _by_steps(arguments: dict[str, Any], arithmetic: Batch, chosen: dict[str, Choice[Any]]) -> Choice[str]:
    when = arguments.get("save_strategy", "steps")
    if when is False or when == "no":
        return Choice("only at the end", "save_strategy: no. A fault loses everything since the start")
    if when != "steps":
        return Choice(f"every {when}" if when == "epoch" else "at each new best", f"save_strategy: {when}")
    every = arguments.get("save_steps", value({}, "save_steps"))
    default = "trainingArguments.save_steps" if "save_steps" in arguments else "transformers' default"
    reason = chosen["save_steps"].reason if "save_steps" in chosen else default
    if isinstance(every, float) and every < 1 and arithmetic.total_steps:
        every = max(1, round(every * arithmetic.total_steps))
    return Choice(f"every {every} steps", reason)
