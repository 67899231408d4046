"""Scores fit what the labels are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import EvalPrediction

from tests.conftest import Tiny
from tests.train.conftest import Train
from trainyard.plan.labels import NUMBERS, SEVERAL, Labels
from trainyard.train.tasks import TABLE


def scores(task: str, labels: Labels, predictions: Any, truth: Any) -> dict[str, float]:
    compute = TABLE[task].metrics(labels)
    assert compute is not None
    return compute(EvalPrediction(predictions=np.array(predictions), label_ids=np.array(truth)))


def logits(*tags: int, count: int) -> list[list[float]]:
    return [[float(tag == index) for index in range(count)] for tag in tags]


@pytest.mark.parametrize("names", [("DET", "NOUN", "VERB"), ("0", "1", "2")], ids=["POS", "ids"])
def test_tags_that_are_no_entities_have_macro_f1(names: tuple[str, ...]) -> None:
    """Three of four tags are right: per tag F1 is 1, 2/3 and 0 (sklearn's macro average: 5/9)."""
    predicted = [logits(0, 1, 1, 0, count=3), logits(0, 0, 0, 0, count=3)]
    truth = [[0, 1, 2, 0], [-100, -100, -100, -100]]
    computed = scores("token-classification", Labels(names), predicted, truth)
    assert computed["accuracy"] == 0.75
    assert computed["f1"] == pytest.approx(5 / 9)


def test_entities_have_entity_f1() -> None:
    predicted = [logits(1, 2, 0, 1, count=3)]
    computed = scores("token-classification", Labels(("O", "B-X", "I-X")), predicted, [[1, 2, 0, 0]])
    assert computed["f1"] == pytest.approx(2 / 3)  # one entity of one is found, one of two is right
    assert computed["accuracy"] == 0.75


def test_right_integer_tags_score_one(tiny: Tiny, train: Train, tmp_path: Path) -> None:
    """Every word has its own tag, so a model that learns a little is scored above zero."""
    words = ["cat", "dog", "sun", "moon"]
    rows = [{"tokens": [words[i % 4], words[(i + 1) % 4]], "tags": [i % 4, (i + 1) % 4]} for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(
        task="token-classification", model={"source": tiny.model("bert")},
        data={"train": {"source": str(tmp_path / "rows.jsonl")}, "evaluation": {"source": str(tmp_path / "rows.jsonl")}},
        trainingArguments={"max_steps": 60, "learning_rate": 0.01, "per_device_train_batch_size": 8, "save_strategy": "no", "lr_scheduler_type": "constant"},
    )  # fmt: skip
    assert done.result.outcome == "Complete", done.log
    metrics = json.loads((done.run / "final/manifest.json").read_text())["metrics"]
    assert metrics["eval_accuracy"] == metrics["eval_f1"] == 1.0
    assert "macro F1 over tags: the tags are not BIO (0, 1, 2, 3)" in (done.run / "final/README.md").read_text()


def test_several_numbers_are_measured() -> None:
    computed = scores("text-classification", Labels((), NUMBERS, 2), [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 2.0]])
    assert computed["mse"] == 1.0


def test_probabilities_as_labels_are_measured_at_one_half() -> None:
    computed = scores("text-classification", Labels(("a", "b"), SEVERAL), [[4.0, -4.0]], [[0.9, 0.2]])
    assert computed == {"f1": 1.0, "accuracy": 1.0}


@pytest.mark.parametrize("length", [3, 5], ids=["same length", "other lengths"])
def test_batches_are_scored_as_a_whole(length: int) -> None:
    """eval_do_concat_batches: false hands batches over one by one, with rows of other lengths."""
    from trainyard.train.predictions import over_batches

    compute = over_batches(TABLE["token-classification"].metrics(Labels(("O", "B-X", "I-X"))))
    assert compute is not None
    first = np.array([logits(1, 2, 0, count=3)])
    second = np.array([logits(*[1] * length, count=3)])
    truth = [np.array([[1, 2, 0]]), np.array([[0] * length])]
    computed = compute(EvalPrediction(predictions=[first, second], label_ids=truth))
    assert computed["accuracy"] == pytest.approx(3 / (3 + length))


def test_a_task_evaluates_batches_one_by_one(tiny: Tiny, train: Train) -> None:
    arguments = {"max_steps": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1}  # fmt: skip
    data = {"train": {"source": tiny.rows("tags")}, "evaluation": {"fraction": 0.25}}
    spec: dict[str, Any] = {"task": "token-classification", "model": {"source": tiny.model("bert")}, "data": data}
    whole = train(name="whole", **spec, trainingArguments=arguments)
    batches = train(name="batches", **spec, trainingArguments={**arguments, "eval_do_concat_batches": False})
    measured = [json.loads((run.run / "final/manifest.json").read_text())["metrics"] for run in (whole, batches)]
    for name in ("eval_f1", "eval_accuracy", "eval_loss"):
        assert measured[1][name] == pytest.approx(measured[0][name])
