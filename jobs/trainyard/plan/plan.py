"""The plan: everything that follows from the manifest and was not written in it, with the reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainyard.errors import JobError
from trainyard.plan import accelerate, memory, strategy
from trainyard.plan.batch import Batch, batch, value
from trainyard.plan.choice import Choice
from trainyard.plan.facts import Facts
from trainyard.plan.inputs import is_local
from trainyard.spec.model import Spec, TrainerJob
from trainyard.spec.tasks import TASKS
from trainyard.spec.yamltext import Problem

_LOGGED_EVERY = 10
_SAVES_A_RUN = 10
NEVER = 1_000_000_000
"""Steps that no run has."""


@dataclass(frozen=True)
class Plan:
    """What a job will do."""

    world_size: Choice[int]
    batch: Batch | None
    """None for a script, whose arguments are its own; so are the strategy and the arguments then."""
    strategy: Choice[str]
    chosen: dict[str, Choice[Any]]
    """TrainingArguments that the user did not write."""
    cadence: Choice[str]
    memory: Choice[int | None]
    every: str | None
    """How often a checkpoint is saved, where it is by time."""
    staging: Choice[str]
    """Where checkpoints lie while they are uploaded: Memory or Disk."""
    labels: Mapping[str, Choice[str]]
    """What the labels are, where that is known before the data is read for training."""
    warnings: tuple[str, ...]
    arguments: dict[str, Any]
    """TrainingArguments in full, as they are passed on (output_dir excepted)."""


def check(spec: Spec) -> list[Problem]:
    """What is well-formed but cannot be done, with the fix."""
    problems = [Problem(("spec", "accelerate", key), message) for key, message in accelerate.check(spec)]
    name = strategy.strategy_name(spec)
    problems += [Problem(("spec", "strategy", name, "config", key), message) for key, message in strategy.check(spec)]
    if spec.script is None and spec.task not in TASKS:
        message = f"{spec.task} does not train yet in this version; what does: {', '.join(TASKS)}"
        problems.append(Problem(("spec", "task"), message))
    if name == "fsdp" and not spec.workers.gpus:
        message = "FSDP2 needs GPUs: accelerate replaces it by DDP on CPU without a word. Set workers.gpus, or use ddp"
        problems.append(Problem(("spec", "strategy", "fsdp"), message))
    if spec.workers.gpus and spec.workers.processes > spec.workers.gpus:
        message = f"{spec.workers.processes} processes would share {spec.workers.gpus} GPUs; one a GPU is the most"
        problems.append(Problem(("spec", "workers", "processesPerWorker"), message))
    given = spec.training_arguments
    if spec.data is not None and spec.data.evaluation is None:
        for key in ("eval_strategy", "load_best_model_at_end"):
            if given.get(key) not in (None, False, "no"):
                where = ("spec", "trainingArguments", key)
                problems.append(Problem(where, "there is nothing to evaluate on: add spec.data.evaluation"))
    limit = given.get("save_total_limit")
    if limit is not None and limit != spec.checkpoint.keep_last and "keep_last" in spec.checkpoint.model_fields_set:
        message = f"{limit}, but spec.checkpoint.keepLast is {spec.checkpoint.keep_last}; keep one of them"
        problems.append(Problem(("spec", "trainingArguments", "save_total_limit"), message))
    offload = name == "deepspeed" and "offload" in str(spec.strategy.deepspeed)
    if offload and not spec.workers.gpus:
        message = "offloading to the CPU means nothing without GPUs; remove the offload_ keys"
        problems.append(Problem(("spec", "strategy", "deepspeed", "config"), message))
    begin = spec.resume_from
    if begin is not None and not is_local(begin) and "://" not in begin:  # of a hub there are models, no checkpoints
        message = f"{begin} is neither a path nor a URI: write ./{begin} for a folder of this machine"
        problems.append(Problem(("spec", "resumeFrom"), message))
    return problems


def plan(job: TrainerJob, facts: Facts) -> Plan:
    """The plan of a job that check() found nothing wrong with. Raises JobError when this machine cannot hold it."""
    spec = job.spec
    processes = spec.workers.processes
    world_size = spec.workers.count * processes
    size = Choice(world_size, f"{spec.workers.count} workers × {processes} processes")
    if spec.script is not None:
        own = "the script's own TrainingArguments"
        unknown: Choice[int | None] = Choice(None, "not known: the script loads its model")
        return Plan(
            size,
            None,
            Choice("script", own),
            {},
            Choice("as the script saves", own),
            unknown,
            spec.checkpoint.every,
            memory.staging(spec, facts, None),
            {},
            (),
            {},
        )
    arithmetic = batch(spec.training_arguments, world_size, facts.train_rows)
    chosen = _chosen(spec, arithmetic)
    arguments = {**{name: choice.value for name, choice in chosen.items()}, **spec.training_arguments}
    arguments.pop("save_total_limit", None)
    mixed = bool(arguments.get("bf16") or arguments.get("fp16"))
    states = memory.model_states(spec, facts, world_size, mixed)
    warnings = (memory.verdict(spec, facts, states, world_size), memory.staging_warning(spec, facts, world_size))
    if problem := memory.staging_problem(spec, facts, world_size):
        raise JobError(f"spec.checkpoint.staging: {problem}")
    return Plan(
        world_size=size,
        batch=arithmetic,
        strategy=Choice(strategy.label(spec), "spec.strategy" if spec.strategy.ddp is None else _ddp_reason(spec)),
        chosen=chosen,
        every=by_time(spec),
        cadence=_cadence(spec, arguments, arithmetic, chosen),
        memory=states,
        staging=memory.staging(spec, facts, world_size),
        labels=facts.labels,
        warnings=tuple(warning for warning in warnings if warning),
        arguments=arguments,
    )


def keep_last(spec: Spec) -> int:
    """How many of the newest checkpoints are kept; TrainingArguments.save_total_limit is the same wish."""
    limit = spec.training_arguments.get("save_total_limit")
    return limit if isinstance(limit, int) and limit > 0 else spec.checkpoint.keep_last


def _ddp_reason(spec: Spec) -> str:
    return "spec.strategy" if "strategy" in spec.model_fields_set else "no strategy was written, and ddp is the default"


def _chosen(spec: Spec, arithmetic: Batch) -> dict[str, Choice[Any]]:
    given = spec.training_arguments
    chosen = {**strategy.settings(spec), **accelerate.settings(spec)}
    if not spec.workers.gpus:
        chosen["use_cpu"] = Choice(True, "workers.gpus is 0; DeepSpeed on CPU also needs it to count its batch right")
        chosen["dataloader_pin_memory"] = Choice(False, "pinned memory serves copies to a GPU, and there is none")
    chosen["logging_nan_inf_filter"] = Choice(False, "the filter would hide a loss that has diverged")
    steps = arithmetic.total_steps
    every = max(1, min(_LOGGED_EVERY, steps // 10)) if steps else _LOGGED_EVERY
    chosen["logging_steps"] = Choice(every, "transformers' default of 500 shows no loss in a short run")
    if by_time(spec) is not None:
        chosen["save_steps"] = Choice(NEVER, "checkpoint.every: saves are by time; the last step is saved all the same")
    elif given.get("save_strategy", "steps") == "steps" and not given.get("load_best_model_at_end"):
        default = value({}, "save_steps")
        often = max(1, min(default, -(-steps // _SAVES_A_RUN))) if steps else default
        reason = f"a tenth of the {steps} steps, at most {default}" if steps else "transformers' default"
        chosen["save_steps"] = Choice(often, reason)
    if given.get("do_eval") and "eval_strategy" not in given:
        chosen["eval_strategy"] = Choice("epoch", "do_eval alone evaluates nothing in Trainer")
    return {name: choice for name, choice in chosen.items() if name not in given}


def by_time(spec: Spec) -> str | None:
    """How often checkpoints are saved, by time; None where it is by steps, which trainingArguments may say."""
    given = spec.training_arguments
    by_steps = {"save_steps", "save_strategy"} & given.keys() or given.get("load_best_model_at_end")
    return None if by_steps else spec.checkpoint.every


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
