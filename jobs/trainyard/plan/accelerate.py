"""spec.accelerate: what `accelerate config` writes, checked against what the job says elsewhere."""

import difflib
from collections.abc import Iterator
from typing import Any

from trainyard.plan.choice import Choice
from trainyard.plan.strategy import strategy_name
from trainyard.spec.model import Spec

_PLACEMENT = (
    "compute_environment", "machine_rank", "main_process_ip", "main_process_port", "main_training_function",
    "num_machines", "rdzv_backend", "same_network", "enable_cpu_affinity", "tpu_env", "tpu_use_cluster",
    "tpu_use_sudo", "tpu_name", "tpu_zone", "gpu_ids", "debug", "downcast_bf16", "ipex_config",
)  # fmt: skip
_ELSEWHERE = {
    "deepspeed_config": "write spec.strategy.deepspeed.config",
    "fsdp_config": "write spec.strategy.fsdp.config",
    "gradient_accumulation_steps": "write spec.trainingArguments.gradient_accumulation_steps",
    "dynamo_config": "write spec.trainingArguments.torch_compile and torch_compile_backend",
}
_CANNOT_WORK = {
    "parallelism_config": "tensor, context and sequence parallelism are not supported; remove it",
}
_TYPES = {"ddp": ("NO", "MULTI_CPU", "MULTI_GPU"), "deepspeed": ("DEEPSPEED",), "fsdp": ("FSDP",)}
_KNOWN = (*_PLACEMENT, *_ELSEWHERE, *_CANNOT_WORK, "mixed_precision", "num_processes", "distributed_type", "use_cpu")


def check(spec: Spec) -> Iterator[tuple[str, str]]:
    """Every mistake in spec.accelerate, as (key, message)."""
    for key in spec.accelerate:
        if key not in _KNOWN:
            near = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.6)
            yield key, f"`accelerate config` writes no such key. {f'Did you mean {near[0]}?' if near else 'Remove it'}"
        elif key in _ELSEWHERE:
            yield key, f"it has a place of its own: {_ELSEWHERE[key]}"
        elif key in _CANNOT_WORK:
            yield key, f"cannot work here: {_CANNOT_WORK[key]}"
    yield from _disagreements(spec)


def settings(spec: Spec) -> dict[str, Choice[Any]]:
    """The TrainingArguments that spec.accelerate stands for."""
    precision = spec.accelerate.get("mixed_precision")
    if precision in ("bf16", "fp16"):
        return {precision: Choice(True, "spec.accelerate.mixed_precision", field="accelerate")}
    return {}


def _disagreements(spec: Spec) -> Iterator[tuple[str, str]]:
    block, name = spec.accelerate, strategy_name(spec)
    world_size = spec.workers.count * spec.workers.processes
    if block.get("num_processes", world_size) != world_size:
        yield "num_processes", f"{block['num_processes']}, but spec.workers makes {world_size} processes; remove it"
    wanted = _TYPES[name]
    if block.get("distributed_type", wanted[0]) not in wanted:
        yield "distributed_type", f"{block['distributed_type']}, but spec.strategy is {name}; remove it"
    precision = block.get("mixed_precision", "no")
    if precision is False:
        precision = "no"
    if precision not in ("no", "bf16", "fp16"):
        yield "mixed_precision", f"{precision!r} is none of no, bf16, fp16"
    for argument in ("bf16", "fp16"):
        if spec.training_arguments.get(argument) and "mixed_precision" in block and precision != argument:
            yield "mixed_precision", f"{precision!r} contradicts trainingArguments.{argument}; keep one"
