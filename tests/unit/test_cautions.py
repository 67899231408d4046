"""What may be done and is hardly meant is a warning, in validate and in the plan."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, manifest
from trainyard.errors import JobError
from trainyard.launch.drive import Drive
from trainyard.plan.facts import Facts
from trainyard.plan.notes import notes
from trainyard.plan.plan import doubts, plan
from trainyard.spec.manifest import loads
from trainyard.spec.yamltext import dump
from trainyard.storage.store import open_store

EVALUATED = {"train": {"source": "d.jsonl"}, "evaluation": {"fraction": 0.1}}


def warnings(rows: int | None = None, **changes: object) -> list[str]:
    job = loads(json.dumps(manifest(**changes))).job
    facts = Facts(train_rows=rows)
    assert plan(job, facts).warnings == doubts(job, facts)
    return list(doubts(job, facts))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"warmup_steps": 500}, "warmup_steps: 500 steps of warm-up in a run of 10"),
        ({"eval_strategy": "steps", "eval_steps": 50}, "eval_steps: 50 is more than the 10 steps"),
        ({"save_steps": 500}, "save_steps: 500 is more than the 10 steps of the run: only the last step is saved"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 5, "save_steps": 50},
            "and the best one cannot be told",
        ),
        ({"logging_steps": 500}, "logging_steps: 500 is more than the 10 steps"),
        ({"learning_rate": 0.0}, "learning_rate: 0 changes no weight"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_trains_nothing_is_a_warning(arguments: dict[str, object], words: str) -> None:
    (answer,) = warnings(data=EVALUATED, trainingArguments={"max_steps": 10, **arguments})
    assert answer.startswith("spec.trainingArguments.")
    assert words in answer


def test_shares_and_fitting_steps_are_no_warning() -> None:
    arguments = {"warmup_steps": 0.1, "eval_strategy": "steps", "eval_steps": 0.5, "save_steps": 10, "max_steps": 10}
    assert warnings(data=EVALUATED, trainingArguments=arguments) == []


def test_keep_every_that_keeps_nothing_is_a_warning() -> None:
    checkpoint = {"keepEvery": 7}
    (answer,) = warnings(checkpoint=checkpoint, trainingArguments={"max_steps": 60, "save_steps": 10})
    assert "checkpoint.keepEvery: 7 keeps nothing" in answer
    assert warnings(checkpoint=checkpoint, trainingArguments={"max_steps": 70, "save_steps": 10}) == []


def test_unknown_number_of_steps_is_no_warning() -> None:
    assert warnings(trainingArguments={"warmup_steps": 500}) == []
    assert len(warnings(rows=8, trainingArguments={"warmup_steps": 500})) == 1


def test_dropped_rows_are_no_steps() -> None:
    arguments = {"dataloader_drop_last": True, "per_device_train_batch_size": 8}
    job = loads(json.dumps(manifest(workers={"count": 2}, trainingArguments=arguments))).job
    planned = plan(job, Facts(train_rows=15))
    assert planned.batch is not None
    assert (planned.batch.steps_per_epoch, planned.batch.total_steps) == (0, 0)
    assert "15 rows are fewer than the 16 that the processes see at once" in notes(planned)["optimizer steps"]
    assert planned.warnings[0].startswith("spec.trainingArguments.dataloader_drop_last: 15 rows")


def test_validate_shows_warnings(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "job.yaml").write_text(dump(manifest(trainingArguments={"warmup_steps": 500, "max_steps": 10})))
    done = cli("validate", "job.yaml")
    assert done.returncode == 0
    assert done.stdout == "job.yaml: job is valid\n"
    assert done.stderr.startswith("job.yaml: warning: spec.trainingArguments.warmup_steps: 500 steps of warm-up")


def test_a_run_says_its_warnings_when_it_starts(tmp_path: Path) -> None:
    class Begun(Exception):  # noqa: N818 - no error
        pass

    def connect() -> Any:
        raise Begun

    job = loads(json.dumps(manifest(trainingArguments={"warmup_steps": 500, "max_steps": 10}))).job
    told: list[dict[str, Any]] = []
    nothing: Any = None
    store = open_store(str(tmp_path))
    drive = Drive(job, plan(job, Facts()), store, nothing, told.append, connect, nothing, 1)
    with pytest.raises(Begun):
        drive.run()
    (event,) = told
    assert event["text"].startswith("warning: spec.trainingArguments.warmup_steps: 500 steps of warm-up in a run of 10")


def test_run_without_steps_is_refused_before_it_starts(tmp_path: Path) -> None:
    arguments = {"dataloader_drop_last": True, "per_device_train_batch_size": 8}
    job = loads(json.dumps(manifest(trainingArguments=arguments))).job
    nothing: Any = None
    drive = Drive(
        job, plan(job, Facts(train_rows=5)), open_store(str(tmp_path)), nothing, nothing, nothing, nothing, 1, nothing
    )
    with pytest.raises(JobError, match="5 rows are fewer than the 8"):
        drive.run()
    assert list(tmp_path.iterdir()) == []
