"""The strategy's settings in full: what goes to DeepSpeed, FSDP2 or DDP."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from trainyard.plan.choice import Choice
from trainyard.spec.catalogue import arguments
from trainyard.spec.hints import did_you_mean
from trainyard.spec.model import Spec

_FSDP_KEYS = (
    "version", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params", "reshard_after_forward",
    "cpu_offload", "cpu_ram_efficient_loading", "state_dict_type", "activation_checkpointing",
)  # fmt: skip
"""What transformers 5 reads of fsdp_config for FSDP2 (TrainingArguments._process_fsdp_args)."""

_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
_SAME = {
    ("train_micro_batch_size_per_gpu",): "per_device_train_batch_size",
    ("gradient_accumulation_steps",): "gradient_accumulation_steps",
    ("gradient_clipping",): "max_grad_norm",
    ("optimizer", "params", "lr"): "learning_rate",
    ("optimizer", "params", "eps"): "adam_epsilon",
    ("optimizer", "params", "weight_decay"): "weight_decay",
    ("scheduler", "params", "warmup_max_lr"): "learning_rate",
}
"""Numbers that stand in a DeepSpeed configuration and in trainingArguments."""

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


Mistake = tuple[tuple[str, ...], str]
"""A path inside the strategy's config, and what is wrong there with the fix."""


def check(spec: Spec) -> Iterator[Mistake]:
    """Every unknown key of a strategy's config, and what contradicts the rest; DeepSpeed checks its own keys."""
    if spec.strategy.ddp is not None:
        prefix = "ddp_"
        known = [name.removeprefix(prefix) for name in arguments() if name.startswith(prefix)]
        yield from _unknown(spec.strategy.ddp.config, [name for name in known if name not in ("backend", "timeout")])
    if spec.strategy.deepspeed is not None:
        zero = spec.strategy.deepspeed.config.get("zero_optimization")
        stage = zero.get("stage") if isinstance(zero, dict) else None
        if stage is not None and stage != spec.strategy.deepspeed.zero_stage:
            message = f"its stage is {stage}, but zeroStage is {_stage(spec)}; write zeroStage: {stage}"
            yield ("zero_optimization", "stage"), message
        yield from _mismatches(spec)
    if spec.strategy.fsdp is not None:
        # transformers ignores a key of fsdp_config that it does not know, without a word.
        config = spec.strategy.fsdp.config
        yield from _unknown(config, _FSDP_KEYS)
        twice = [name for name in _CHECKPOINTING if spec.training_arguments.get(name)]
        if config.get("activation_checkpointing") and twice:
            message = f"set here and as trainingArguments.{twice[0]}; keep it here, which gathers less"
            yield ("activation_checkpointing",), message


def _mismatches(spec: Spec) -> Iterator[Mistake]:
    """Numbers of a DeepSpeed configuration that are not those of trainingArguments: transformers refuses them.

    Source: HfTrainerDeepSpeedConfig.trainer_config_process and trainer_config_finalize.
    """
    config = spec.strategy.deepspeed.config if spec.strategy.deepspeed else {}
    for path, argument in _SAME.items():
        written = _at(config, path)
        wanted = spec.training_arguments.get(argument, arguments()[argument].default)
        if written not in (None, "auto", wanted):
            yield path, f"{written}, but trainingArguments.{argument} is {wanted}; write auto here"
    if _at(config, ("train_batch_size",)) not in (None, "auto"):
        yield ("train_batch_size",), "it follows from trainingArguments and spec.workers; write auto"


def _at(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = config
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _unknown(config: dict[str, Any], known: Sequence[str]) -> Iterator[Mistake]:
    for key in config:
        if key not in known:
            yield (key,), f"unknown key. {did_you_mean(key, known)}"


def settings(spec: Spec) -> dict[str, Choice[Any]]:
    """The TrainingArguments that the strategy sets, each with its reason."""
    if spec.strategy.deepspeed is not None:
        reason = f"spec.strategy.deepspeed, zeroStage {_stage(spec)}"
        return {"deepspeed": Choice(_deepspeed(spec), reason, field="strategy.deepspeed")}
    if spec.strategy.fsdp is not None:
        # Shards are saved where they are: transformers' default gathers the whole state, and training waits for it.
        base = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "SHARDED_STATE_DICT"}
        config = {**base, **spec.strategy.fsdp.config}
        return {
            "fsdp": Choice("full_shard auto_wrap", "spec.strategy.fsdp", field="strategy.fsdp"),
            "fsdp_config": Choice(config, "spec.strategy.fsdp.config over FSDP2's defaults", field="strategy.fsdp"),
        }
    config = spec.strategy.ddp.config if spec.strategy.ddp else {}
    reason = "spec.strategy.ddp.config"
    return {f"ddp_{key}": Choice(item, reason, field="strategy.ddp") for key, item in config.items()}


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
