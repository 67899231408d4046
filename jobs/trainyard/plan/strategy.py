"""The strategy's settings in full: what goes to DeepSpeed, FSDP2 or DDP."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from trainyard.plan.choice import Choice
from trainyard.spec.catalogue import arguments
from trainyard.spec.model import Spec

_FSDP_KEYS = (
    "version", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params", "reshard_after_forward",
    "cpu_offload", "cpu_ram_efficient_loading", "state_dict_type", "activation_checkpointing",
)  # fmt: skip
"""What transformers 5 reads of fsdp_config for FSDP2 (TrainingArguments._process_fsdp_args)."""

StrategyName = Literal["ddp", "deepspeed", "fsdp"]


def strategy_name(spec: Spec) -> StrategyName:
    """The strategy that the manifest chose."""
    if spec.strategy.deepspeed is not None:
        return "deepspeed"
    return "fsdp" if spec.strategy.fsdp is not None else "ddp"


def label(spec: Spec) -> str:
    """The strategy as a person says it: ddp, ZeRO-2, FSDP2."""
    if spec.strategy.deepspeed is not None:
        return f"ZeRO-{spec.strategy.deepspeed.zero_stage}"
    return "FSDP2" if spec.strategy.fsdp is not None else "ddp"


def check(spec: Spec) -> Iterator[tuple[str, str]]:
    """Every unknown key of a strategy's config, as (key, message); DeepSpeed checks its own."""
    if spec.strategy.ddp is not None:
        prefix = "ddp_"
        known = [name.removeprefix(prefix) for name in arguments() if name.startswith(prefix)]
        yield from _unknown(spec.strategy.ddp.config, [name for name in known if name not in ("backend", "timeout")])
    if spec.strategy.deepspeed is not None:
        zero = spec.strategy.deepspeed.config.get("zero_optimization")
        stage = zero.get("stage") if isinstance(zero, dict) else None
        if stage is not None and stage != spec.strategy.deepspeed.zero_stage:
            yield (
                "zero_optimization",
                f"its stage is {stage}, but zeroStage is {_stage(spec)}; write zeroStage: {stage}",
            )
    if spec.strategy.fsdp is not None:
        # transformers ignores a key of fsdp_config that it does not know, without a word.
        yield from _unknown(spec.strategy.fsdp.config, _FSDP_KEYS)


def _unknown(config: dict[str, Any], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            yield key, "unknown key. " + (f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}")


def settings(spec: Spec) -> dict[str, Choice[Any]]:
    """The TrainingArguments that the strategy sets, each with its reason."""
    if spec.strategy.deepspeed is not None:
        return {"deepspeed": Choice(_deepspeed(spec), f"spec.strategy.deepspeed, zeroStage {_stage(spec)}")}
    if spec.strategy.fsdp is not None:
        # Shards are saved where they are: transformers' default gathers the whole state, and training waits for it.
        base = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "SHARDED_STATE_DICT"}
        config = {**base, **spec.strategy.fsdp.config}
        return {
            "fsdp": Choice("full_shard auto_wrap", "spec.strategy.fsdp"),
            "fsdp_config": Choice(config, "spec.strategy.fsdp.config over FSDP2's defaults"),
        }
    config = spec.strategy.ddp.config if spec.strategy.ddp else {}
    return {f"ddp_{key}": Choice(item, "spec.strategy.ddp.config") for key, item in config.items()}


def _stage(spec: Spec) -> int:
    return spec.strategy.deepspeed.zero_stage if spec.strategy.deepspeed else 0


def _deepspeed(spec: Spec) -> dict[str, Any]:
    """A DeepSpeed configuration whose `auto` values transformers fills from the TrainingArguments."""
    stage = _stage(spec)
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        # Without it a ZeRO-3 save has no weights that anything but DeepSpeed can read.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    base = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_optimization": zero,
    }
    return _overlaid(base, spec.strategy.deepspeed.config if spec.strategy.deepspeed else {})


def _overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, item in over.items():
        below = merged.get(key)
        merged[key] = _overlaid(below, item) if isinstance(below, dict) and isinstance(item, dict) else item
    return merged
