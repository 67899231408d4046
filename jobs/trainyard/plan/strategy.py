"""The strategy's settings in full: what goes to DeepSpeed, FSDP2 or DDP."""

from typing import Any, Literal

from trainyard.plan.choice import Choice
from trainyard.spec.model import Spec

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


def settings(spec: Spec) -> dict[str, Choice[Any]]:
    """The TrainingArguments that the strategy sets, each with its reason."""
    if spec.strategy.deepspeed is not None:
        return {"deepspeed": Choice(_deepspeed(spec), f"spec.strategy.deepspeed, zeroStage {_stage(spec)}")}
    if spec.strategy.fsdp is not None:
        config = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", **spec.strategy.fsdp.config}
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
