"""Arguments that a manifest cannot set, each with the reason and the fix.

They are names of transformers 4, arguments that trainyard sets itself, and arguments that cannot work here. Writing an
argument's default value is no mistake.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainyard.spec.catalogue import arguments

_OFF = (None, False, 0, "", "no")


@dataclass(frozen=True)
class Removed:
    """An argument of transformers 4 that version 5 does not have."""

    write: str = ""
    """What to write in its place, with {value} where the value goes. Empty: nothing takes its place."""
    why: str = ""
    """Why it is gone, or where what it did is now."""
    successor: str | None = None
    """The argument of version 5 that takes the same value."""


def _renamed(successor: str) -> Removed:
    return Removed(write=f"{successor}: {{value}}", successor=successor)


REMOVED: dict[str, Removed] = {
    "evaluation_strategy": _renamed("eval_strategy"),
    "evaluate_during_training": Removed(write="eval_strategy: steps"),
    "logging_dir": Removed(
        why="TensorBoard's folder is the environment variable TENSORBOARD_LOGGING_DIR; metrics.jsonl and curves are "
        "written in any case",
    ),
    "group_by_length": Removed(write="train_sampling_strategy: group_by_length"),
    "warmup_ratio": Removed(write="warmup_steps: {value}", why="below 1 it is a ratio", successor="warmup_steps"),
    "per_gpu_train_batch_size": _renamed("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": _renamed("per_device_eval_batch_size"),
    "no_cuda": _renamed("use_cpu"),
    "use_mps_device": Removed(why="MPS is used where it is; write use_cpu: true to avoid it"),
    "xpu_backend": Removed(why="the backend follows from the hardware"),
    "adafactor": Removed(write="optim: adafactor"),
    "sharded_ddp": Removed(why="write spec.strategy: {fsdp: {}} or {deepspeed: {zeroStage: 2}}"),
    "fsdp_min_num_params": Removed(why="write min_num_params under spec.strategy.fsdp.config"),
    "fsdp_transformer_layer_cls_to_wrap": Removed(
        why="write transformer_layer_cls_to_wrap under spec.strategy.fsdp.config"
    ),
    "include_inputs_for_metrics": Removed(write="include_for_metrics: [inputs]"),
    "include_tokens_per_second": Removed(
        write="include_num_input_tokens_seen: true", why="tokens/s is shown in any case"
    ),
    "push_to_hub_token": Removed(why="a token in a manifest is readable by everyone who can read the job"),
    "push_to_hub_model_id": _renamed("hub_model_id"),
    "push_to_hub_organization": Removed(write="hub_model_id: {value}/<model>"),
    "tpu_num_cores": Removed(why="set the environment variable TPU_NUM_CORES"),
    "tpu_metrics_debug": Removed(write="debug: tpu_metrics_debug"),
    "overwrite_output_dir": Removed(why="spec.resume decides: Never starts from scratch"),
    "save_safetensors": Removed(why="weights are always safetensors"),
    "fp16_backend": Removed(why="there is one implementation left"),
    "half_precision_backend": Removed(why="there is one implementation left"),
    "fp16_opt_level": Removed(why="Apex is gone; fp16: true is enough"),
    "torchdynamo": _renamed("torch_compile_backend"),
    "dispatch_batches": Removed(why="each process reads its own rows"),
    "split_batches": Removed(write="accelerator_config: {{split_batches: {value}}}"),
    **dict.fromkeys(
        ("jit_mode_eval", "past_index", "mp_parameters", "ray_scope", "use_legacy_prediction_loop", "use_ipex"),
        Removed(),
    ),
}
"""Arguments of transformers 4 that version 5 does not have, by their names."""


@dataclass(frozen=True)
class Refused:
    """An argument that a manifest cannot set."""

    why: str
    harmless: Callable[[Any], bool] | None = None
    """Says of a value whether it asks for nothing. Default: whether it is transformers' default."""


def _is_true(value: Any) -> bool:
    return value is True


def _is_not_false(value: Any) -> bool:
    return value is not False


OWNED: dict[str, Refused] = {
    "output_dir": Refused("where a run is kept follows from spec.storage.uri and metadata.name"),
    "local_rank": Refused("the launcher sets each process's rank"),
    "ddp_backend": Refused("the backend follows from the hardware: nccl with GPUs, gloo without"),
    "resume_from_checkpoint": Refused(
        "the newest committed checkpoint is found by itself; spec.resume decides if it is used, and spec.resumeFrom "
        "names one of plain Trainer to begin with"
    ),
    "deepspeed": Refused("write spec.strategy: {deepspeed: {zeroStage: 2, config: …}}"),
    "fsdp": Refused("write spec.strategy: {fsdp: {}}"),
    "fsdp_config": Refused("write spec.strategy: {fsdp: {config: …}}"),
    "save_on_each_node": Refused("each node uploads what its own processes write"),
    "do_train": Refused(
        "a TrainerJob always trains; `trainyard eval` measures a model without training", harmless=_is_true
    ),
    "do_predict": Refused("use `trainyard predict` on the finished model"),
    "disable_tqdm": Refused(
        "the progress bar is the launcher's; it is off by itself when the output is not a terminal",
        harmless=_is_not_false,
    ),
    "restore_callback_states_from_checkpoint": Refused("callbacks are restored with the checkpoint", harmless=_is_true),
    "ignore_data_skip": Refused("a resumed run sees the samples that the unbroken one would have seen"),
}
"""Arguments that trainyard sets, or does itself. They are never handed to TrainingArguments."""

CANNOT_WORK: dict[str, Refused] = {
    "eval_use_gather_object": Refused("it mixes up the rows of different batches, and the tasks' outputs are tensors"),
    "enable_jit_checkpoint": Refused(
        "it needs signal handlers of its own in the main thread; here SIGTERM already saves a checkpoint before it ends"
    ),
    "push_to_hub": Refused(
        "training processes hold no hub token; upload the result with `hf upload <repository> <run>/final`"
    ),
    "auto_find_batch_size": Refused(
        "it changes the global batch in the middle of a run, so a resumed run would not equal the unbroken one; "
        "`trainyard plan` shows an estimate of the memory"
    ),
    "save_only_model": Refused(
        "without optimizer and RNG state nothing can be resumed; the final model is saved alone anyway"
    ),
    "parallelism_config": Refused(
        "tensor, context and sequence parallelism are not supported; spec.strategy.deepspeed and fsdp spread a model"
    ),
}
"""Arguments that would break what trainyard promises."""


def answer(name: str, value: Any) -> str | None:
    """What is wrong with naming this argument, and the fix; None where the name and the value are fine."""
    if name in REMOVED:
        return _removed(REMOVED[name], value)
    if name in OWNED and not _harmless(name, OWNED[name], value):
        return f"set by trainyard: {OWNED[name].why}. Remove it"
    if name in CANNOT_WORK and not _harmless(name, CANNOT_WORK[name], value):
        return f"cannot work here: {CANNOT_WORK[name].why}. Remove it"
    if name == "hub_token" and value is not None:
        return "a token in a manifest is readable by everyone who can read the job; remove it and revoke the token"
    return None


def words(name: str) -> str | None:
    """What to know of an argument before writing it; None where there is nothing but transformers' own words."""
    if name in REMOVED:
        removed = REMOVED[name]
        instead = f"write {removed.write.format(value='…')}" if removed.write else "remove it"
        return f"transformers 5 removed it: {instead}{f' ({removed.why})' if removed.why else ''}."
    if name in OWNED:
        return f"Set by trainyard: {OWNED[name].why}."
    if name in CANNOT_WORK:
        return f"Cannot work here: {CANNOT_WORK[name].why}."
    return None


def _removed(removed: Removed, value: Any) -> str:
    if not removed.write:
        return f"transformers 5 removed it; remove it here{f' ({removed.why})' if removed.why else ''}"
    if value in _OFF:
        return "transformers 5 removed it; remove it here (without it, it is off)"
    written = removed.write.format(value=_yaml(value))
    return f"transformers 5 removed it; write {written}{f' ({removed.why})' if removed.why else ''}"


def _harmless(name: str, refused: Refused, value: Any) -> bool:
    if refused.harmless is not None:
        return refused.harmless(value)
    default = arguments()[name].default
    return value is None or value == default or (default is None and value in ("", False))


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
