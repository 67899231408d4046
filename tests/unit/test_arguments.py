"""trainingArguments: what people bring from transformers is taken, or answered with the exact successor."""

import pytest

from trainyard.spec.answers import REMOVED
from trainyard.spec.arguments import check
from trainyard.spec.catalogue import arguments

QUICK_TOUR = {
    "output_dir": "distilbert-rotten-tomatoes",
    "learning_rate": 2e-5,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "num_train_epochs": 2,
    "push_to_hub": True,
}
V4_TUTORIAL = {
    "output_dir": "./results",
    "evaluation_strategy": "epoch",
    "save_strategy": "epoch",
    "learning_rate": 2e-5,
    "per_device_train_batch_size": 16,
    "num_train_epochs": 3,
    "weight_decay": 0.01,
    "logging_dir": "./logs",
    "logging_steps": 10,
    "warmup_ratio": 0.1,
    "group_by_length": True,
    "overwrite_output_dir": True,
    "save_total_limit": 2,
    "seed": 42,
}


def answers(values: dict[str, object]) -> dict[str, str]:
    return {path[0]: message for path, message in check(values)}


def test_the_quick_tour_is_taken_or_answered() -> None:
    told = answers(QUICK_TOUR)
    assert set(told) == {"output_dir", "push_to_hub"}
    assert "spec.storage.uri" in told["output_dir"]
    assert "hf upload" in told["push_to_hub"]


def test_a_v4_tutorial_is_answered_with_the_successors() -> None:
    told = answers(V4_TUTORIAL)
    assert set(told) == {
        "output_dir",
        "evaluation_strategy",
        "logging_dir",
        "warmup_ratio",
        "group_by_length",
        "overwrite_output_dir",
    }
    assert "write eval_strategy" in told["evaluation_strategy"]
    assert "TENSORBOARD_LOGGING_DIR" in told["logging_dir"]
    assert "warmup_steps" in told["warmup_ratio"]
    assert "train_sampling_strategy: group_by_length" in told["group_by_length"]


def test_no_successor_is_itself_unknown() -> None:
    assert not set(REMOVED) & set(arguments())
    written = [removed.write.partition(":")[0] for removed in REMOVED.values() if removed.write]
    assert set(written) <= set(arguments())
    assert {removed.successor for removed in REMOVED.values() if removed.successor} <= set(arguments())


LECTURE = {
    "output_dir": "./out",
    "overwrite_output_dir": True,
    "do_train": True,
    "do_eval": True,
    "evaluation_strategy": "steps",
    "eval_steps": 50,
    "save_steps": 100,
    "load_best_model_at_end": True,
    "logging_dir": "./logs",
    "warmup_ratio": 0.1,
    "fp16": False,
    "group_by_length": False,
}


def test_lectures_block_is_answered_line_by_line() -> None:
    """What is harmless is taken, and one mistake is not answered at a second line."""
    told = answers(LECTURE)
    assert told == {
        "output_dir": "set by trainyard: where a run is kept follows from spec.storage.uri and metadata.name. Remove it",
        "overwrite_output_dir": "transformers 5 removed it; remove it here (spec.resume decides: Never starts from scratch)",
        "evaluation_strategy": "transformers 5 removed it; write eval_strategy: steps",
        "logging_dir": "transformers 5 removed it; remove it here (TensorBoard's folder is the environment variable "
        "TENSORBOARD_LOGGING_DIR; metrics.jsonl and curves are written in any case)",
        "warmup_ratio": "transformers 5 removed it; write warmup_steps: 0.1 (below 1 it is a ratio)",
        "group_by_length": "transformers 5 removed it; remove it here (without it, it is off)",
    }
    mended = {name: value for name, value in LECTURE.items() if name not in told}
    assert answers({**mended, "eval_strategy": "steps", "warmup_steps": 0.1}) == {}


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("group_by_length", False, "write train_sampling_strategy: group_by_length"),
        ("adafactor", False, "write optim: adafactor"),
        ("evaluate_during_training", False, "write eval_strategy: steps"),
        ("include_inputs_for_metrics", False, "write include_for_metrics: [inputs]"),
        ("tpu_metrics_debug", False, "write debug: tpu_metrics_debug"),
        ("no_cuda", False, "write use_cpu: true"),
        ("split_batches", False, "write accelerator_config: {split_batches: true}"),
        ("torchdynamo", None, "write torch_compile_backend: true"),
        ("warmup_ratio", 0.0, "write warmup_steps: true"),
    ],
)
def test_removed_argument_that_is_off_is_removed(name: str, off: object, on: str) -> None:
    assert answers({name: off}) == {name: "transformers 5 removed it; remove it here (without it, it is off)"}
    assert on in answers({name: True})[name]


@pytest.mark.parametrize(
    "values",
    [
        {"do_train": True},
        {"do_predict": False},
        {"local_rank": -1},
        {"ddp_backend": None},
        {"resume_from_checkpoint": None},
        {"fsdp": ""},
        {"deepspeed": None},
        {"ignore_data_skip": False},
        {"hub_token": None},
        {"push_to_hub": False},
        {"save_only_model": False},
        {"do_eval": True, "eval_steps": 10},
        {"do_eval": True, "load_best_model_at_end": True, "save_strategy": "epoch"},
    ],
    ids=lambda values: "+".join(values),
)
def test_harmless_value_is_no_mistake(values: dict[str, object]) -> None:
    assert answers(values) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enable_jit_checkpoint": True}, "SIGTERM already saves"),
        ({"output_dir": "x"}, "set by trainyard"),
        ({"deepspeed": {}}, "spec.strategy"),
        ({"local_rank": 0}, "the launcher sets"),
        ({"fp16": True, "bf16": True}, "exclude each other"),
        ({"load_best_model_at_end": True}, "needs evaluations"),
        ({"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps"}, "same value"),
        ({"eval_steps": 10}, "add eval_strategy: steps"),
        ({"do_train": False}, "always trains"),
        ({"parallelism_config": {"tp_size": 2}}, "not supported"),
        ({"accelerator_config": {"dispatch_batches": True}}, "rows of different lengths cannot be put into one batch"),
        ({"gradient_checkpointing": True, "activation_checkpointing": True}, "keep one"),
        ({"save_only_model": True}, "nothing can be resumed"),
        ({"max_steps": 0}, "train nothing"),
        ({"num_train_epochs": "three"}, "a float is wanted"),
        ({"bf16": 1}, "a bool is wanted"),
        ({"lr_scheduler_type": "cosin"}, "Did you mean cosine?"),
        ({"per_device_train_batch_size": 1.5}, "an int is wanted"),
        ({"auto_find_batch_size": True}, "global batch"),
        ({"eval_use_gather_object": True}, "mixes up the rows"),
        ({"per_device_train_batch_size": 0}, "1 is the least"),
        ({"gradient_accumulation_steps": -1}, "1 is the least"),
        ({"num_train_epochs": 0}, "above 0"),
        ({"per_device_train_batch_size": 10**30}, "too large"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_told_why(values: dict[str, object], message: str) -> None:
    assert message in " ".join(answers(values).values())


def test_a_default_written_out_is_no_mistake() -> None:
    quiet = {"do_train", "restore_callback_states_from_checkpoint"}  # their defaults are not what happens here
    values = {name: argument.default for name, argument in arguments().items() if name not in quiet}
    assert answers(values) == {}


@pytest.mark.parametrize("name", ["save_steps", "eval_steps", "logging_steps"])
def test_steps_are_whole_numbers_or_a_share(name: str) -> None:
    evaluated = {"eval_strategy": "steps"}
    assert "no whole number of steps" in answers({**evaluated, name: 1.5})[name]
    assert not any(answers({**evaluated, name: value}) for value in (5, 5.0, 0.5))
