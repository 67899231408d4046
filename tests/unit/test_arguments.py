"""trainingArguments: what people bring from transformers is taken, or answered with the exact successor."""

import pytest

from trainyard.spec.arguments import REMOVED, check
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
    for name in (
        "eval_strategy",
        "use_cpu",
        "optim",
        "include_for_metrics",
        "hub_token",
        "hub_model_id",
        "warmup_steps",
        "debug",
    ):
        assert name in arguments()


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
        ({"eval_steps": 10, "do_eval": True}, "add eval_strategy: steps"),
        ({"gradient_checkpointing": True, "activation_checkpointing": True}, "keep one"),
        ({"save_only_model": True}, "nothing can be resumed"),
        ({"max_steps": 0}, "train nothing"),
        ({"num_train_epochs": "three"}, "a float is wanted"),
        ({"bf16": 1}, "a bool is wanted"),
        ({"lr_scheduler_type": "cosin"}, "Did you mean cosine?"),
        ({"per_device_train_batch_size": 1.5}, "an int is wanted"),
        ({"auto_find_batch_size": True}, "global batch"),
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
    owned = {"output_dir", "local_rank", "ddp_backend", "resume_from_checkpoint", "deepspeed", "fsdp", "fsdp_config"}
    quiet = owned | {
        "save_on_each_node",
        "do_train",
        "do_predict",
        "disable_tqdm",
        "restore_callback_states_from_checkpoint",
        "ignore_data_skip",
        "hub_token",
    }
    values = {name: argument.default for name, argument in arguments().items() if name not in quiet}
    assert answers(values) == {}


@pytest.mark.parametrize("name", ["save_steps", "eval_steps", "logging_steps"])
def test_steps_are_whole_numbers_or_a_share(name: str) -> None:
    evaluated = {"eval_strategy": "steps"}
    assert "no whole number of steps" in answers({**evaluated, name: 1.5})[name]
    assert not any(answers({**evaluated, name: value}) for value in (5, 5.0, 0.5))
