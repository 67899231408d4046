"""The resolved job is a manifest that plans the same."""

import json
from typing import Any

import pytest

from tests.conftest import manifest
from trainyard.plan.facts import Facts
from trainyard.plan.plan import Plan, plan
from trainyard.plan.resolved import resolved
from trainyard.spec.manifest import loads
from trainyard.spec.model import TrainerJob
from trainyard.spec.yamltext import dump

SCRIPT = {"task": None, "model": None, "data": None, "script": {"path": "train.py", "env": {"A": "b"}}}
EVALUATED = {"train": {"source": "d.jsonl"}, "evaluation": {"fraction": 0.1}}


def job_of(**changes: object) -> TrainerJob:
    written = {key: value for key, value in manifest(**changes)["spec"].items() if value is not None}  # type: ignore[attr-defined]
    return loads(json.dumps({**manifest(), "spec": written})).job


def meaning(planned: Plan) -> dict[str, Any]:
    """What a plan says, without where its values come from."""
    return {
        "world size": planned.world_size.value,
        "batch": planned.batch,
        "strategy": planned.strategy.value,
        "cadence": planned.cadence.value,
        "memory": planned.memory,
        "every": planned.every,
        "staging": planned.staging.value,
        "warnings": planned.warnings,
        "arguments": planned.arguments,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"trainingArguments": {"max_steps": 10}},
        {"checkpoint": {"every": "10m"}},
        {"checkpoint": {"every": "10m"}, "trainingArguments": {"save_steps": 5}},
        {"trainingArguments": {"save_total_limit": 5}},
        {"trainingArguments": {"do_train": True, "do_eval": True, "eval_steps": 5}, "data": EVALUATED},
        {"strategy": {"deepspeed": {"zeroStage": 3, "config": {"gradient_clipping": "auto"}}}},
        {"strategy": {"fsdp": {"config": {"reshard_after_forward": False}}}, "workers": {"gpus": 1}},
        {"strategy": {"ddp": {"config": {"find_unused_parameters": True}}}},
        {"accelerate": {"mixed_precision": "bf16"}, "workers": {"count": 2}},
        {"model": {"source": "./m", "load": {"dtype": "float32"}}},
        SCRIPT,
        {**SCRIPT, "checkpoint": {"every": "10m"}},
    ],
    ids=[
        "steps", "every", "every gives way", "limit", "do_eval", "deepspeed", "fsdp", "ddp", "accelerate", "load",
        "script", "script every",
    ],
)  # fmt: skip
def test_resolved_job_plans_the_same(changes: dict[str, Any]) -> None:
    job, facts = job_of(**changes), Facts(train_rows=1000, parameters=1000, largest_tensor=10)
    first = plan(job, facts)
    again = loads(dump(resolved(job, first))).job
    second = plan(again, facts)
    assert meaning(second) == meaning(first)
    assert resolved(again, second) == resolved(job, first)


def test_resolved_job_saves_by_time_still() -> None:
    job = job_of(checkpoint={"every": "10m"})
    written = resolved(job, plan(job, Facts()))
    assert "save_steps" not in written["spec"]["trainingArguments"]
    assert written["spec"]["checkpoint"]["every"] == "10m"
