"""The table of tasks, and that the tasks' code says the same."""

import numpy as np
import pytest

from trainyard.spec.tasks import NAMES, PLANNED, TASKS, greater_is_better, headline


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("accuracy", True), ("eval_f1", True), ("mse", False), ("eval_loss", False), ("loss", False), ("rouge", None)],
)
def test_a_metric_has_a_direction(metric: str, greater: bool | None) -> None:
    assert greater_is_better(TASKS["text-classification"], metric) is greater


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"eval_loss": 1.0, "eval_accuracy": 0.5, "eval_f1": 0.4}, ("eval_accuracy", 0.5)),
        ({"eval_loss": 1.0, "eval_mse": 0.5, "eval_r2": 0.4}, ("eval_r2", 0.4)),
        ({"eval_loss": 1.0}, ("eval_loss", 1.0)),
        ({}, None),
    ],
    ids=["classes", "numbers", "loss", "nothing"],
)
def test_headline_is_first_metric_that_is_there(metrics: dict[str, float], shown: object) -> None:
    assert headline(TASKS["text-classification"], metrics) == shown


def test_names_are_trained_and_planned_tasks() -> None:
    assert set(NAMES) == {*TASKS, *PLANNED}
    assert len(NAMES) == len(set(NAMES)) == 10


def test_each_row_has_its_code() -> None:
    from trainyard.train.tasks import TABLE

    assert {name: task.info for name, task in TABLE.items()} == TASKS


@pytest.mark.parametrize(
    ("task", "kind", "shape"),
    [
        ("text-classification", "single_label_classification", (4, 2)),
        ("text-classification", "multi_label_classification", (4, 2)),
        ("text-classification", "regression", (4, 1)),
        ("image-classification", "single_label_classification", (4, 2)),
        ("token-classification", None, (4, 3, 2)),
        ("fill-mask", None, (4, 3)),
        ("text-generation", None, (4, 3)),
    ],
)
def test_table_knows_every_metric(task: str, kind: str | None, shape: tuple[int, ...]) -> None:
    from transformers import EvalPrediction

    from trainyard.plan.labels import Labels
    from trainyard.train.tasks import TABLE

    predictions = np.ones(shape)
    one_hot = kind in ("multi_label_classification", "regression") or task in ("fill-mask", "text-generation")
    labels = np.ones(shape if one_hot else shape[:-1], dtype=int)
    compute = TABLE[task].metrics(Labels(("O", "B-X"), kind))
    assert compute is not None
    squeezed = labels.squeeze(-1) if kind == "regression" else labels
    computed = compute(EvalPrediction(predictions=predictions, label_ids=squeezed))
    assert set(computed) == set(TASKS[task].metrics_for(kind)) - {"loss"}
    assert set(computed) <= set(TASKS[task].metrics)
