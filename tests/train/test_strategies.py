"""The strategies agree, and a resumed run is the unbroken one."""

import json
from typing import Any

import pytest

from tests.conftest import Tiny, losses
from tests.train.conftest import Train
from trainyard.checkpoint import catalogue
from trainyard.storage.store import open_store

ARGUMENTS = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 3,
    "learning_rate": 1e-3,
}
STRATEGIES = {"ddp": {"ddp": {}}, **{f"zero{stage}": {"deepspeed": {"zeroStage": stage}} for stage in (1, 2, 3)}}


def spec(tiny: Tiny, strategy: str = "ddp", **arguments: object) -> dict[str, Any]:
    return {
        "model": {"source": tiny.model("bert")},
        "data": {"train": {"source": tiny.rows("classes")}},
        "strategy": STRATEGIES[strategy],
        "trainingArguments": {**ARGUMENTS, **arguments},
    }


def test_every_strategy_has_the_same_loss_at_every_step(tiny: Tiny, train: Train) -> None:
    found = {}
    for name in STRATEGIES:
        done = train(ranks=2, name=name, **spec(tiny, name))
        assert done.result.outcome == "Complete", done.log
        found[name] = losses(done.run)
    assert set(found["ddp"]) == {1, 2, 3, 4, 5, 6}
    for name in STRATEGIES:
        assert found[name] == pytest.approx(found["ddp"], abs=1e-5), name


def test_two_processes_have_the_loss_of_one(tiny: Tiny, train: Train) -> None:
    """Trainer alone would report twice the loss for models that ignore num_items_in_batch."""
    two = train(ranks=2, name="two", **spec(tiny))
    one = train(ranks=1, name="one", **spec(tiny, per_device_train_batch_size=8))
    accumulated = train(ranks=1, name="accumulated", **spec(tiny, gradient_accumulation_steps=2))
    first = {name: losses(done.run)[1] for name, done in {"two": two, "one": one, "accumulated": accumulated}.items()}
    assert first["two"] == pytest.approx(first["one"], rel=0.1)
    assert first["accumulated"] == pytest.approx(first["one"], rel=0.1)


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_a_resumed_run_is_the_unbroken_one(tiny: Tiny, train: Train, strategy: str) -> None:
    # The schedule is constant, because the first part is a shorter run: a decay would end earlier in it.
    first = train(ranks=2, name="broken", **spec(tiny, strategy, lr_scheduler_type="constant", max_steps=3))
    second = train(ranks=2, name="broken", **spec(tiny, strategy, lr_scheduler_type="constant", max_steps=6))
    whole = train(ranks=2, name="whole", **spec(tiny, strategy, lr_scheduler_type="constant", max_steps=6))
    assert (first.result.outcome, second.result.outcome) == ("Complete", "Complete"), second.log
    assert losses(second.run) == pytest.approx(losses(whole.run), abs=1e-6)


def test_an_optimizer_of_deepspeeds_configuration_is_resumed(tiny: Tiny, train: Train) -> None:
    params = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto", "torch_adam": True}
    config = {"optimizer": {"type": "AdamW", "params": params}}
    changes = {
        **spec(tiny, lr_scheduler_type="constant"),
        "strategy": {"deepspeed": {"zeroStage": 2, "config": config}},
    }
    changes["trainingArguments"] |= {"max_steps": 3}
    assert train(name="broken", **changes).result.outcome == "Complete"
    changes["trainingArguments"] |= {"max_steps": 6}
    second, whole = train(name="broken", **changes), train(name="whole", **changes)
    assert second.result.outcome == "Complete", second.log
    assert losses(second.run) == pytest.approx(losses(whole.run), abs=1e-6)


def test_a_checkpoint_between_two_logs_loses_nothing_of_the_mean(tiny: Tiny, train: Train) -> None:
    constant = {"lr_scheduler_type": "constant", "logging_steps": 4, "save_steps": 3}
    train(name="broken", **spec(tiny, max_steps=3, **constant))
    again = train(name="broken", **spec(tiny, max_steps=8, **constant))
    whole = train(name="whole", **spec(tiny, max_steps=8, **constant))
    assert losses(again.run) == pytest.approx(losses(whole.run), abs=1e-6)


def test_masking_resumes_with_the_masks_of_the_unbroken_run(tiny: Tiny, train: Train) -> None:
    changes = {"task": "fill-mask", "data": {"train": {"source": tiny.rows("texts")}}}
    constant = {"lr_scheduler_type": "constant"}
    train(name="broken", **{**spec(tiny, max_steps=3, **constant), **changes})
    again = train(name="broken", **{**spec(tiny, max_steps=6, **constant), **changes})
    whole = train(name="whole", **{**spec(tiny, max_steps=6, **constant), **changes})
    assert losses(again.run) == pytest.approx(losses(whole.run), abs=1e-6)


def test_a_run_resumed_at_its_last_step_takes_no_step_more(tiny: Tiny, train: Train) -> None:
    first = train(name="job", **spec(tiny))
    before = (first.run / "final/model.safetensors").read_bytes()
    again = train(name="job", **spec(tiny))
    assert again.result == first.result
    assert max(losses(again.run)) == 6
    assert (again.run / "final/model.safetensors").read_bytes() == before


def test_intervals_that_were_changed_count_after_a_resume(tiny: Tiny, train: Train) -> None:
    train(name="job", **spec(tiny, lr_scheduler_type="constant", max_steps=3))
    second = train(name="job", **spec(tiny, lr_scheduler_type="constant", logging_steps=2, save_steps=2))
    assert set(losses(second.run)) == {1, 2, 3, 4, 6}
    committed = catalogue.committed(catalogue.list_checkpoints(open_store(str(second.run))))
    assert [each.step for each in committed] == [6, 4, 3]


def test_metrics_of_steps_that_were_lost_are_not_kept_twice(tiny: Tiny, train: Train) -> None:
    train(name="job", **spec(tiny, max_steps=5, save_steps=3, lr_scheduler_type="constant"))
    again = train(name="job", **spec(tiny, max_steps=8, save_steps=3, lr_scheduler_type="constant"))
    steps = [
        row["step"] for row in map(json.loads, (again.run / "metrics.jsonl").read_text().splitlines()) if "loss" in row
    ]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_where_the_time_went_is_kept_for_each_attempt(tiny: Tiny, train: Train) -> None:
    constant = {"lr_scheduler_type": "constant", "save_steps": 2}
    train(name="job", **spec(tiny, max_steps=4, **constant))
    again = train(name="job", **spec(tiny, max_steps=8, **constant))
    rows = [json.loads(line) for line in (again.run / "metrics.jsonl").read_text().splitlines()]
    splits = {row["attempt"]: row["goodput"] for row in rows if "goodput" in row}
    assert set(splits) == {1, 2}
    assert splits[1]["restore"] == 0
    assert all(splits[2][part] > 0 for part in ("productive", "start_up", "restore", "stall"))
    report = (again.run / "final/report.html").read_text()
    assert "of all attempts' time went to steps that count" in report
    newest = max((again.run / "checkpoints").glob("*/manifest.json"))
    assert json.loads(newest.read_text())["goodput"]["productive"] > 0
