"""Checks spec.trainingArguments against the catalogue, without transformers.

Three kinds of answer: an unknown name gets the nearest known one, a name of transformers 4 gets its
successor, and an argument that cannot work here gets the reason. Nothing is ignored silently.
"""

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from trainyard.spec.catalogue import Argument, arguments

REMOVED = {
    "evaluation_strategy": "write eval_strategy",
    "logging_dir": "TensorBoard's folder is the environment variable TENSORBOARD_LOGGING_DIR; "
    "metrics.jsonl and curves are written in any case",
    "group_by_length": "write train_sampling_strategy: group_by_length",
    "warmup_ratio": "write warmup_steps; below 1 it is a ratio (warmup_ratio: 0.1 is warmup_steps: 0.1)",
    "per_gpu_train_batch_size": "write per_device_train_batch_size",
    "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
    "no_cuda": "write use_cpu",
    "use_mps_device": "remove it: MPS is used where it is; write use_cpu: true to avoid it",
    "adafactor": "write optim: adafactor",
    "fsdp_min_num_params": "write min_num_params under spec.strategy.fsdp.config",
    "fsdp_transformer_layer_cls_to_wrap": "write transformer_layer_cls_to_wrap under spec.strategy.fsdp.config",
    "include_inputs_for_metrics": "write include_for_metrics: [inputs]",
    "include_tokens_per_second": "write include_num_input_tokens_seen; tokens/s is shown in any case",
    "push_to_hub_token": "write hub_token, by a Secret",
    "push_to_hub_model_id": "write hub_model_id",
    "push_to_hub_organization": "write hub_model_id: <organization>/<model>",
    "tpu_num_cores": "set the environment variable TPU_NUM_CORES",
    "tpu_metrics_debug": "write debug: tpu_metrics_debug",
    "overwrite_output_dir": "remove it: spec.resume decides (Never starts anew)",
    "save_safetensors": "remove it: weights are always safetensors",
    "fp16_backend": "remove it: there is one implementation left",
    "half_precision_backend": "remove it: there is one implementation left",
    "fp16_opt_level": "remove it: Apex is gone; fp16: true is enough",
    "jit_mode_eval": "remove it",
    "torchdynamo": "write torch_compile_backend",
    "past_index": "remove it",
    "mp_parameters": "remove it",
    "ray_scope": "remove it",
    "use_legacy_prediction_loop": "remove it",
    "use_ipex": "remove it",
    "evaluate_during_training": "write eval_strategy: steps",
    "dispatch_batches": "write accelerator_config: {dispatch_batches: …}",
    "split_batches": "write accelerator_config: {split_batches: …}",
}
"""Arguments of transformers 4 that version 5 no longer knows, and what to write."""

_OWNED = {
    "output_dir": "where a run is kept follows from spec.storage.uri and metadata.name",
    "local_rank": "the launcher sets each process's rank",
    "ddp_backend": "the backend follows from the hardware: nccl with GPUs, gloo without",
    "resume_from_checkpoint": "the newest committed checkpoint is found by itself; spec.resume decides if it is used",
    "deepspeed": "write spec.strategy: {deepspeed: {zeroStage: 2, config: …}}",
    "fsdp": "write spec.strategy: {fsdp: {}}",
    "fsdp_config": "write spec.strategy: {fsdp: {config: …}}",
    "save_on_each_node": "each node uploads what its own processes write",
    "do_train": "a TrainerJob always trains",
    "do_predict": "use `trainyard predict` on the finished model",
    "disable_tqdm": "the progress bar is the launcher's; it is off by itself when the output is not a terminal",
    "restore_callback_states_from_checkpoint": "callbacks are restored with the checkpoint",
    "ignore_data_skip": "a resumed run sees the samples that the unbroken one would have seen",
}
_CANNOT_WORK = {
    "enable_jit_checkpoint": "it needs signal handlers of its own in the main thread; here SIGTERM already saves a "
    "checkpoint before it ends",
    "push_to_hub": "training processes hold no hub token; upload the result with `hf upload <repository> <run>/final`",
    "auto_find_batch_size": "it changes the global batch in the middle of a run, so a resumed run would not equal the "
    "unbroken one; `trainyard plan` shows an estimate of the memory",
}


_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "learning_rate": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
    "seed": 0,
    "dataloader_num_workers": 0,
}
_POSITIVE = ("num_train_epochs", "save_steps", "logging_steps", "eval_steps")
_STEPS = ("save_steps", "logging_steps", "eval_steps")
_MOST = 1e18


def check(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every mistake in a trainingArguments block, as (path inside the block, message)."""
    for name, value in values.items():
        if message := _check_one(name, value):
            yield (name,), message
    known = {name: value for name, value in values.items() if name in arguments()}
    whole = {name: argument.default for name, argument in arguments().items()} | known
    for names, applies, message in _SETS:
        if applies(whole):
            written = [name for name in names if name in known]
            if written:
                yield (written[0],), message


def normalised(values: dict[str, Any]) -> dict[str, Any]:
    """The block with YAML's accidents mended: an integral float for an int, and `no`, which YAML reads as false."""
    return {name: _normalised(arguments()[name], value) for name, value in values.items()}


def _normalised(argument: Argument, value: Any) -> Any:
    if value is False and "bool" not in argument.types and "no" in argument.choices:
        return "no"
    if isinstance(value, float) and value.is_integer() and "float" not in argument.types and "int" in argument.types:
        return int(value)
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and "int" not in argument.types
        and argument.types[0] == "float"
    ):
        # `save_steps: 50` is declared as a float because a ratio is allowed; transformers keeps an int as it is.
        return value
    return value


def _check_one(name: str, value: Any) -> str | None:
    if name in REMOVED:
        return f"transformers 5 removed it; {REMOVED[name]}"
    if name not in arguments():
        near = difflib.get_close_matches(name, [*arguments(), *REMOVED], n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]}?" if near else "`trainyard explain trainingArguments` lists all."
        return f"unknown argument. {hint}"
    if name in _OWNED:
        return f"set by trainyard: {_OWNED[name]}. Remove it"
    if name in _CANNOT_WORK and value:
        return f"cannot work here: {_CANNOT_WORK[name]}. Remove it"
    if name == "hub_token":
        return "a token in a manifest is readable by everyone who can read the job; remove it and revoke the token"
    argument = arguments()[name]
    value = _normalised(argument, value)
    if _kind(value) not in argument.types and not (_kind(value) == "int" and "float" in argument.types):
        wanted = " or ".join(kind for kind in argument.types if kind != "null")
        found = f"{_shown(value)} is {_article(_kind(value))}"
        return f"{found}, but {_article(wanted)} is wanted{_quoted_number(value, argument)}"
    if (least := _LEAST.get(name)) is not None and isinstance(value, int | float) and value < least:
        return f"{_shown(value)} is too small; {least} is the least"
    if name in _POSITIVE and isinstance(value, int | float) and value <= 0:
        return f"{_shown(value)} is too small; write a number above 0"
    if name in _STEPS and isinstance(value, float) and value > 1 and not value.is_integer():
        return f"{_shown(value)} is no whole number of steps; below 1 it is a share of all of them"
    if "int" in argument.types and isinstance(value, int | float) and abs(value) > _MOST:
        return f"{_shown(value)} is too large"
    if argument.choices and isinstance(value, str) and value not in argument.choices:
        near = difflib.get_close_matches(value, argument.choices, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else ""
        return f"{value!r} is none of {', '.join(argument.choices)}. {hint}".rstrip()
    return None


def _quoted_number(value: Any, argument: Argument) -> str:
    if isinstance(value, str) and ("float" in argument.types or "int" in argument.types):
        try:
            float(value)
        except ValueError:
            return ""
        return "; remove the quotes"
    return ""


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}
    return names.get(type(value), "null")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _strategies_differ(a: dict[str, Any]) -> bool:
    save, evaluate = _strategy(a["save_strategy"]), _strategy(a["eval_strategy"])
    return bool(a["load_best_model_at_end"]) and save not in ("best", evaluate)


def _strategy(value: Any) -> Any:
    return "no" if value is False else value


_SETS: list[tuple[tuple[str, ...], Callable[[dict[str, Any]], bool], str]] = [
    (
        ("fp16", "bf16"),
        lambda a: bool(a["fp16"] and a["bf16"]),
        "fp16 and bf16 exclude each other; keep bf16 where the GPU has it",
    ),
    (
        ("activation_checkpointing", "gradient_checkpointing"),
        lambda a: a["activation_checkpointing"] is not None and a["gradient_checkpointing"] is not None,
        "gradient_checkpointing is the old name of activation_checkpointing; keep one",
    ),
    (
        ("load_best_model_at_end", "eval_strategy"),
        lambda a: bool(a["load_best_model_at_end"]) and _strategy(a["eval_strategy"]) == "no",
        "load_best_model_at_end needs evaluations to compare: set eval_strategy to the value of save_strategy",
    ),
    (
        ("load_best_model_at_end", "save_strategy", "eval_strategy"),
        lambda a: _strategies_differ(a) and _strategy(a["eval_strategy"]) != "no",
        "load_best_model_at_end needs the same value in save_strategy and eval_strategy, so that the best evaluated "
        "step has a checkpoint",
    ),
    (
        ("do_eval", "eval_steps"),
        lambda a: a["eval_steps"] is not None and _strategy(a["eval_strategy"]) == "no",
        "eval_steps does nothing while eval_strategy is `no`; add eval_strategy: steps",
    ),
    (
        ("save_only_model",),
        lambda a: bool(a["save_only_model"]),
        "without optimizer and RNG state nothing can be resumed; remove it (the final model is saved alone anyway)",
    ),
    (
        ("max_steps",),
        lambda a: isinstance(a["max_steps"], int) and a["max_steps"] == 0,
        "0 steps train nothing; write -1 for whole epochs or the number of steps",
    ),
]
