"""A Trainer of one's own that trains an adapter: saved, resumed, exported and used."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tiny, losses, manifest
from tests.train.conftest import Train
from trainyard.spec.manifest import validate
from trainyard.spec.model import Storage
from trainyard.train import evaluate

ADAPTER = """
from peft import LoraConfig, get_peft_model
from transformers import Trainer

def with_adapter(model, **kwargs):
    adapter = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"], lora_dropout=0.0)
    return Trainer(model=get_peft_model(model, adapter), **kwargs)
"""


@pytest.fixture
def spec(tiny: Tiny, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "own.py").write_text(ADAPTER)
    return {
        "code": str(tmp_path),
        "trainer": {"entrypoint": "own:with_adapter"},
        "model": {"source": tiny.model("bert")},
        "data": {"train": {"source": tiny.rows("classes")}, "evaluation": {"fraction": 0.25}},
    }


ARGUMENTS = {
    "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 3, "learning_rate": 1e-2, "max_steps": 6,
    "lr_scheduler_type": "constant",
}  # fmt: skip


def test_an_adapter_is_exported_and_used(train: Train, spec: dict[str, Any]) -> None:
    done = train(**spec, trainingArguments=ARGUMENTS)
    assert done.result.outcome == "Complete", done.log
    final = done.run / "final"
    assert (final / "adapter_model.safetensors").exists()
    assert not (final / "model.safetensors").exists()
    trained = evaluate.find(str(final), Storage(uri="."), None)
    ((_, answers),) = evaluate.predict(trained, ["cat runs over sun"])
    assert answers[0]["label"] in ("animal", "sky", "ground")


def test_eval_of_an_adapter_gives_trainings_number(train: Train, spec: dict[str, Any], tiny: Tiny) -> None:
    rows = {"train": {"source": tiny.rows("classes")}, "evaluation": {"source": tiny.rows("classes")}}
    done = train(**{**spec, "data": rows}, trainingArguments=ARGUMENTS)
    measured = json.loads((done.run / "final" / "manifest.json").read_text())["metrics"]
    job, problems = validate(manifest(**{**spec, "data": rows}))
    assert job is not None, problems
    trained = evaluate.find(str(done.run / "final"), Storage(uri="."), None)
    again = evaluate.evaluate(trained, job.spec, 8)
    assert again["eval_loss"] == pytest.approx(measured["eval_loss"], rel=1e-4)


def test_a_resumed_adapter_is_the_unbroken_one(train: Train, spec: dict[str, Any]) -> None:
    train(name="broken", **spec, trainingArguments={**ARGUMENTS, "max_steps": 3})
    again = train(name="broken", **spec, trainingArguments=ARGUMENTS)
    whole = train(name="whole", **spec, trainingArguments=ARGUMENTS)
    assert again.result.outcome == "Complete", again.log
    assert losses(again.run) == pytest.approx(losses(whole.run), abs=1e-6)
