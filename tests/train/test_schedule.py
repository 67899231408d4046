"""A resumed run takes the moments of its checkpoint, and rates and coefficients of the manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tiny
from tests.train.conftest import Train, Trained

ARGUMENTS: dict[str, Any] = {
    "max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 2, "learning_rate": 1e-3,
}  # fmt: skip


def rates(done: Trained) -> dict[int, float]:
    assert done.result.outcome == "Complete", done.log
    rows = [json.loads(line) for line in (done.run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}


def trained(tiny: Tiny, train: Train, **arguments: Any) -> Trained:
    changes = {"strategy": arguments.pop("strategy")} if "strategy" in arguments else {}
    return train(
        model={"source": tiny.model("bert")},
        data={"train": {"source": tiny.rows("classes")}, "evaluation": {"fraction": 0.25}},
        trainingArguments={**ARGUMENTS, **arguments},
        **changes,
    )


CASES = {
    "more steps": ({}, {"max_steps": 4}, {3: 1e-3 * 2 / 4, 4: 1e-3 * 1 / 4}),
    "another rate": ({}, {"max_steps": 4, "learning_rate": 1e-5}, {3: 1e-5 * 2 / 4, 4: 1e-5 * 1 / 4}),
    "another schedule": ({}, {"max_steps": 4, "lr_scheduler_type": "constant", "learning_rate": 1e-5}, {3: 1e-5, 4: 1e-5}),
    "a warm-up": ({}, {"max_steps": 4, "warmup_steps": 4}, {3: 1e-3 * 2 / 4, 4: 1e-3 * 3 / 4}),
    "from plateau to constant": (
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1},
        {"max_steps": 4, "lr_scheduler_type": "constant", "learning_rate": 1e-5},
        {3: 1e-5, 4: 1e-5},
    ),
    "zero": (
        {"strategy": {"deepspeed": {"zeroStage": 2}}},
        {"strategy": {"deepspeed": {"zeroStage": 2}}, "max_steps": 4, "learning_rate": 1e-5},
        {3: 1e-5 * 2 / 4, 4: 1e-5 * 1 / 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_resumed_rates_are_the_manifests(tiny: Tiny, train: Train, case: str) -> None:
    before, after, expected = CASES[case]
    trained(tiny, train, **before)
    again = rates(trained(tiny, train, **after))
    assert {step: again[step] for step in expected} == pytest.approx(expected)


def test_resumed_plateau_keeps_the_reduced_rate(tiny: Tiny, train: Train) -> None:
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1}
    kwargs = {"lr_scheduler_kwargs": {"patience": 0, "threshold": 10.0, "factor": 0.5}}
    first = rates(trained(tiny, train, **plateau, **kwargs, max_steps=3, save_steps=3))
    again = rates(trained(tiny, train, **plateau, **kwargs, max_steps=5, save_steps=3))
    assert again[4] <= first[3] < 1e-3


def test_resumed_weight_decay_is_the_manifests(tiny: Tiny, train: Train, tmp_path: Path) -> None:
    """With a rate of 0 for the gradient's part nothing else moves: decay alone shrinks weights by rate × decay."""
    import torch
    from safetensors.torch import load_file

    trained(tiny, train, weight_decay=0.0)
    done = trained(tiny, train, max_steps=4, weight_decay=100.0, learning_rate=1e-3, lr_scheduler_type="constant")
    assert done.result.outcome == "Complete", done.log
    weights = load_file(done.run / "final" / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    start = load_file(Path(tiny.model("bert")) / "model.safetensors")[name.removeprefix("bert.")]
    shrunk = torch.linalg.norm(weights[name]) / torch.linalg.norm(start)
    assert float(shrunk) == pytest.approx((1 - 1e-3 * 100) ** 2, abs=0.05)
