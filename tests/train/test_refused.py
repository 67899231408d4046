"""What validate refuses in trainingArguments, the pinned libraries refuse, too: no rule is made up, none is stale."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
from transformers.optimization import get_scheduler
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext, _parse_optim_args

from tests.conftest import Tiny, manifest
from trainyard.plan.checks import check as check_spec
from trainyard.plan.labels import Labels
from trainyard.spec import library
from trainyard.spec.arguments import check
from trainyard.spec.manifest import loads, read
from trainyard.train.tasks import TABLE

BY_TRAINING_ARGUMENTS: list[dict[str, Any]] = [
    {"fp16_full_eval": True, "bf16_full_eval": True},
    {"fp16": True, "bf16": True},
    {"load_best_model_at_end": True},
    {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps"},
    {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 100, "save_steps": 150},
    {"load_best_model_at_end": True, "eval_strategy": "steps", "logging_steps": 100, "save_steps": 150},
    {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 150},
    {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 0.25},
    {"lr_scheduler_type": "reduce_lr_on_plateau"},
    {"lr_scheduler_type": "greedy"},
    {"dataloader_prefetch_factor": 2},
    {"torch_empty_cache_steps": 0},
    {"warmup_steps": -1},
    {"debug": "underflow"},
    {"eval_strategy": "step"},
    {"optim": "adamw"},
    {"lr_scheduler_type": "cosin"},
    {"accelerator_config": {"split_batch": True}},
    {"accelerator_config": "config.json"},
    {"logging_steps": 1.5},
    {"activation_checkpointing_kwargs": "{use_reentrant: false"},
    {"lr_scheduler_kwargs": "{num_cycles"},
    {"save_steps": 1.5},
]


@pytest.mark.parametrize("values", BY_TRAINING_ARGUMENTS, ids=lambda values: "+".join(values))
def test_rules_are_those_of_training_arguments(tmp_path: Path, values: dict[str, Any]) -> None:
    assert list(check(values))
    with pytest.raises((ValueError, TypeError, OSError)):
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **values)


@pytest.mark.parametrize("values", [{"report_to": ["wand"]}, {"report_to": "tensorbord"}], ids=str)
def test_trackers_are_those_of_transformers(values: dict[str, Any]) -> None:
    from transformers.integrations import get_reporting_integration_callbacks

    assert list(check(values))
    with pytest.raises(ValueError, match="not supported"):
        get_reporting_integration_callbacks(values["report_to"])


@pytest.mark.parametrize(
    "values",
    [
        {"dataloader_persistent_workers": True},
        {"dataloader_multiprocessing_context": "fork"},
        {"dataloader_prefetch_factor": 2},
    ],
    ids=lambda values: next(iter(values)),
)
def test_rules_of_loading_are_those_of_torch(values: dict[str, Any]) -> None:
    assert list(check(values))
    arguments = {name.removeprefix("dataloader_"): value for name, value in values.items()}
    with pytest.raises(ValueError, match=r"num_workers|multiprocessing"):
        torch.utils.data.DataLoader([1, 2], num_workers=0, **arguments)


SCHEDULES: list[dict[str, Any]] = [
    {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"num_cycles": 2}},
    {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycle": 2}},
    {"lr_scheduler_type": "cosine_with_min_lr"},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6, "min_lr_rate": 0.1}},
    {"lr_scheduler_type": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {}},
    {"lr_scheduler_type": "warmup_stable_decay"},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5, "decay_type": "line"}},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5, "warmup_type": "x"}},
    {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "lr_scheduler_kwargs": {"factor": 1.5}},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "lr_scheduler_kwargs": {"mode": "less"}},
    {"lr_scheduler_type": "greedy", "eval_strategy": "epoch", "lr_scheduler_kwargs": {"patienc": 1}},
]


@pytest.mark.parametrize("values", SCHEDULES, ids=lambda values: str(list(values.values())))
def test_rules_of_schedules_are_those_of_the_factory(values: dict[str, Any]) -> None:
    assert list(check(values))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    with pytest.raises((ValueError, TypeError)):
        get_scheduler(values["lr_scheduler_type"], optimizer, 1, 100, values.get("lr_scheduler_kwargs"))


@pytest.mark.parametrize("name", library.schedules())
def test_each_schedule_takes_what_is_known(name: str) -> None:
    """The factory takes every name that validate takes, with the values of its own defaults."""
    kwargs = {"cosine_with_min_lr": {"min_lr_rate": 0.1}, "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1}}
    written = kwargs.get(name, {}) | dict.fromkeys(library.schedules()[name].required, 5)
    values: dict[str, Any] = {"lr_scheduler_type": name, "lr_scheduler_kwargs": written, "eval_strategy": "epoch"}
    assert list(check(values)) == []
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    assert get_scheduler(name, optimizer, 1, 100, written) is not None


class Recorder(dict[str, str]):
    """Keys of optim_args that a handler asks for."""

    def __init__(self) -> None:
        super().__init__(filler="1")
        self.asked: set[str] = set()

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return False


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop", "adamw_torch", "adafactor"])
def test_keys_of_optimizers_are_those_that_handlers_read(tmp_path: Path, name: str) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim=name)
    recorder = Recorder()
    _OPTIMIZER_HANDLERS[name](OptimizerContext(args, None, {"lr": 1e-3}, {}, recorder))
    assert recorder.asked == set(library.optimizers()[name].arguments)


@pytest.mark.parametrize("text", ["momentum", "momentum=0.9=1"])
def test_optim_args_are_read_as_transformers_reads_them(text: str) -> None:
    assert list(check({"optim": "sgd", "optim_args": text}))
    with pytest.raises(ValueError, match="unpack"):
        _parse_optim_args(text)


def test_every_optimizer_has_a_handler() -> None:
    assert {str(getattr(name, "value", name)) for name in _OPTIMIZER_HANDLERS} == set(library.optimizers())


@pytest.mark.parametrize(
    "name", ["adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "learning_rate"], ids=lambda name: name
)
def test_bounds_of_the_optimizer_are_torchs(name: str) -> None:
    written = {"adam_beta1": 1.0, "adam_beta2": 1.0}.get(name, -1.0)
    assert list(check({name: written}))
    values = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    changes = {
        "adam_beta1": {"betas": (written, 0.999)},
        "adam_beta2": {"betas": (0.9, written)},
        "adam_epsilon": {"eps": written},
        "weight_decay": {"weight_decay": written},
        "learning_rate": {"lr": written},
    }
    with pytest.raises(ValueError, match="Invalid"):
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], **(values | changes[name]))


def test_seed_is_bounded_as_by_numpy() -> None:
    import numpy as np

    assert list(check({"seed": 2**32}))
    assert list(check({"seed": 2**32 - 1})) == []
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.seed(2**32)


def test_accumulation_keys_are_those_of_accelerate() -> None:
    from accelerate.utils import GradientAccumulationPlugin

    known = set(inspect.signature(GradientAccumulationPlugin).parameters)
    written = {"accelerator_config": {"gradient_accumulation_kwargs": dict.fromkeys(known - {"num_steps"}, True)}}
    assert list(check(written)) == []


def build(tiny: Tiny, folder: Path, values: dict[str, Any]) -> Trainer:
    """A Trainer with the metrics of a task, as the training process builds it."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny.model("bert"), num_labels=2)
    metrics = TABLE["text-classification"].metrics(Labels(("a", "b"), "single_label_classification"))
    args = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", **values)
    rows = [{"input_ids": [1], "labels": 0}]
    return Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows, compute_metrics=metrics)


def mistakes(values: dict[str, Any]) -> list[str]:
    """What validate says of the arguments in a whole job, by the names of the arguments."""
    data = {"train": {"source": "d.jsonl"}, "evaluation": {"fraction": 0.5}}
    reading = read(json.dumps(manifest(data=data, trainingArguments=values)))[1]
    assert reading.job is not None
    problems = [*reading.problems, *check_spec(reading.job.spec)]
    return [str(problem.path[2]) for problem in problems]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"save_strategy": "best", "eval_strategy": "epoch"}, "save_strategy"),
        ({"batch_eval_metrics": True}, "batch_eval_metrics"),
        (
            {
                "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}},
                "gradient_accumulation_steps": 2,
            },
            "accelerator_config",
        ),
        ({"accelerator_config": {"gradient_accumulation_kwargs": {"steps": 2}}}, "accelerator_config"),
        ({"parallelism_config": {"tp_size": 2}}, "parallelism_config"),
        ({"torch_compile_backend": "inducter"}, "torch_compile_backend"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules_of_the_trainer_are_trainers(tiny: Tiny, tmp_path: Path, values: dict[str, Any], name: str) -> None:
    assert mistakes(values) == [name]
    with pytest.raises((ValueError, TypeError, AttributeError)):
        build(tiny, tmp_path, values)


def test_fp16_on_cpu_is_float32_without_a_word(tiny: Tiny, tmp_path: Path) -> None:
    """The reason why validate refuses it."""
    assert mistakes({"fp16": True}) == ["fp16"]
    assert build(tiny, tmp_path, {"fp16": True}).accelerator.native_amp is False
    assert build(tiny, tmp_path, {"bf16": True}).accelerator.native_amp is True


def test_metric_without_predictions_is_missing(tiny: Tiny, tmp_path: Path) -> None:
    values = {"prediction_loss_only": True, "metric_for_best_model": "accuracy", "eval_strategy": "steps"}
    assert mistakes(values) == ["metric_for_best_model"]
    metrics = build(tiny, tmp_path, {"prediction_loss_only": True}).evaluate()
    assert "eval_loss" in metrics
    assert "eval_accuracy" not in metrics


def test_modes_of_compile_are_torchs() -> None:
    assert mistakes({"torch_compile_mode": "max-autotun"}) == ["torch_compile_mode"]
    assert mistakes({"torch_compile_mode": "max-autotune"}) == []
    with pytest.raises(RuntimeError, match="mode"):
        torch.compile(torch.nn.Linear(1, 1), mode="max-autotun")


def test_tf32_needs_a_gpu(tiny: Tiny, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert mistakes({"tf32": True}) == ["tf32"]
    with pytest.raises(ValueError, match="tf32"):
        build(tiny, tmp_path, {"tf32": True})


def test_arguments_that_pass_make_a_trainer(tiny: Tiny, tmp_path: Path) -> None:
    values = {"save_strategy": "best", "eval_strategy": "epoch", "metric_for_best_model": "f1"}
    assert mistakes(values) == []
    assert isinstance(build(tiny, tmp_path, values), Trainer)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"gradient_clipping": 2.0}, "gradient_clipping"),
        ({"train_micro_batch_size_per_gpu": 3}, "train_micro_batch_size_per_gpu"),
        ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps"),
        ({"train_batch_size": 3}, "train_batch_size"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1.0}}}, "optimizer.params.lr"),
        ({"optimizer": {"type": "AdamW", "params": {"weight_decay": 1.0}}}, "optimizer.params.weight_decay"),
        ({"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1.0}}}, "scheduler.params.warmup_max_lr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_of_deepspeed_must_be_those_of_arguments(tmp_path: Path, config: dict[str, Any], path: str) -> None:
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    spec = loads(json.dumps(manifest(strategy={"deepspeed": {"config": config}}))).job.spec
    assert [".".join(map(str, problem.path[4:])) for problem in check_spec(spec)] == [path]
    real = HfTrainerDeepSpeedConfig({**config, "zero_optimization": {"stage": 2}})
    real.trainer_config_process(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    assert len(real.mismatches) == 1
    assert path.rpartition(".")[2] in real.mismatches[0]
