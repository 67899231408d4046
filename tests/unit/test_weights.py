"""The plan says in which dtype weights are trained, and which way a metric is better."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import manifest
from trainyard.plan.facts import Facts, gather
from trainyard.plan.plan import Plan, plan
from trainyard.spec.manifest import validate


def planned(facts: Facts | None = None, **changes: Any) -> Plan:
    job, problems = validate(manifest(**changes))
    assert job is not None, problems
    return plan(job, facts if facts is not None else gather(job.spec))


@pytest.mark.parametrize(
    ("load", "stored", "dtype", "reason"),
    [
        ({}, "bfloat16", "float32", "stored in bfloat16, where updates smaller than 1/256 of a weight would be lost"),
        ({}, "float16", "float32", "1/2048 of a weight"),
        ({}, "float32", "float32", "what is trained is held in float32"),
        ({}, None, "float32", "what is trained is held in float32"),
        ({"dtype": "bfloat16"}, "float32", "bfloat16", "spec.model.load.dtype"),
        ({"dtype": "auto"}, "bfloat16", "bfloat16", "as they are stored"),
    ],
    ids=["bfloat16", "float16", "float32", "unknown", "written", "auto"],
)
def test_trained_weights_are_float32(load: dict[str, Any], stored: str | None, dtype: str, reason: str) -> None:
    choice = planned(Facts(stored_dtype=stored), model={"source": "./model", "load": load}).weights
    assert choice is not None
    assert choice.value == dtype
    assert reason in choice.reason


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_the_stored_dtype_is_read(tmp_path: Path, field: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "llama", "{field}": "bfloat16"}}')
    choice = planned(model={"source": str(tmp_path)}).weights
    assert choice is not None
    assert "stored in bfloat16" in choice.reason


@pytest.mark.parametrize(("dtype", "bytes_a_parameter"), [("float32", 16), ("bfloat16", 8)])
def test_model_states_follow_the_dtype(dtype: str, bytes_a_parameter: int) -> None:
    made = planned(Facts(parameters=1000), model={"source": "./model", "load": {"dtype": dtype}})
    assert made.memory.value == 1000 * bytes_a_parameter


BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}


@pytest.mark.parametrize(
    ("metric", "greater"), [("mse", False), ("eval_mse", False), ("loss", False), ("accuracy", True), ("r2", True)]
)
def test_the_table_knows_which_way_is_better(metric: str, greater: bool) -> None:
    data = {"train": {"source": "./data.jsonl"}, "evaluation": {"fraction": 0.2}}
    made = planned(data=data, trainingArguments={**BEST, "metric_for_best_model": metric})
    assert made.arguments["greater_is_better"] is greater
    assert made.chosen["greater_is_better"].reason == f"{'more' if greater else 'less'} of {metric} is better"
