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
