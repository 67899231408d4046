"""`predict` and `eval` answer for what the model was trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.conftest import Cli, Tiny, tiny_manifest
from trainyard.spec.model import Storage
from trainyard.train import evaluate

HERE = Storage(uri=".")
TASK = {"task": "text-classification"}


def model(tiny: Tiny, folder: Path, bias: list[float], **config: Any) -> str:
    """A classifier that answers each text with the same logits."""
    built = AutoModelForSequenceClassification.from_pretrained(tiny.model("bert"), num_labels=len(bias), **config)
    with torch.no_grad():
        built.classifier.weight.zero_()
        built.classifier.bias.copy_(torch.tensor(bias))
    built.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny.model("bert")).save_pretrained(folder)
    return str(folder)


NAMES = {"id2label": {0: "war", 1: "oil", 2: "art"}, "problem_type": "multi_label_classification"}


@pytest.mark.parametrize(
    ("bias", "labels"),
    [([2.0, 0.5, -3.0], ["war", "oil"]), ([-1.0, -2.0, -3.0], []), ([-1.0, 3.0, -2.0], ["oil"])],
    ids=["two", "none", "one"],
)  # fmt: skip
def test_all_labels_above_one_half_are_answered(
    tiny: Tiny, tmp_path: Path, bias: list[float], labels: list[str]
) -> None:
    trained = evaluate.find(model(tiny, tmp_path / "model", bias, **NAMES), HERE, TASK["task"])
    [(_, answer)] = evaluate.predict(trained, ["cat sun"])
    assert [label["label"] for label in answer] == labels
    for label in answer:
        place = list(NAMES["id2label"].values()).index(label["label"])
        assert label["score"] == pytest.approx(torch.sigmoid(torch.tensor(bias[place])).item(), abs=1e-5)


@pytest.mark.parametrize(("bias", "number"), [([4.25], 4.25), ([1.5, -2.0], [1.5, -2.0])], ids=["one", "two"])
def test_a_regression_answers_its_numbers(tiny: Tiny, tmp_path: Path, bias: list[float], number: Any) -> None:
    trained = evaluate.find(model(tiny, tmp_path / "model", bias, problem_type="regression"), HERE, TASK["task"])
    [(_, answer)] = evaluate.predict(trained, ["cat sun"])
    assert answer == pytest.approx(number)


def test_predict_shows_labels_and_numbers(tiny: Tiny, tmp_path: Path, cli: Cli) -> None:
    model(tiny, tmp_path / "several", [2.0, 0.5, -3.0], **NAMES)
    shown = cli("predict", "./several", "cat sun", "--task", "text-classification")
    assert "war (0.881), oil (0.622)" in shown.stdout, shown.stderr
    model(tiny, tmp_path / "number", [4.25], problem_type="regression")
    shown = cli("predict", "./number", "cat sun", "--task", "text-classification")
    assert "4.25" in shown.stdout, shown.stderr
    assert "LABEL_0" not in shown.stdout


def test_the_task_of_a_scripts_model_is_found(tiny: Tiny, tmp_path: Path) -> None:
    """A script's run.json names no task; the class in config.json does."""
    folder = tmp_path / "run/checkpoints/final"
    model(tiny, folder, [0.1, 0.2])
    (tmp_path / "run/run.json").write_text(json.dumps({"manifest": {"spec": {"script": {"path": "train.py"}}}}))
    assert evaluate.find(str(folder), HERE, None).task.info.name == "text-classification"


def test_eval_takes_a_name_with_commas(tiny: Tiny, tmp_path: Path, cli: Cli) -> None:
    names = {"id2label": {0: "animal", 1: "ground", 2: "sky"}, "problem_type": "single_label_classification"}
    model(tiny, tmp_path / "model", [9.0, 0.0, 0.0], **names)
    rows = [{"text": "cat", "label": "animal"}, {"text": "dog", "label": "sky"}]
    (tmp_path / "my data, v2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tiny_manifest(tiny, tmp_path)
    measured = cli("eval", "./model", "-f", str(file), "--data", "my data, v2.jsonl", "-o", "json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["eval_accuracy"] == 0.5
