"""text-classification: one label, several labels, or a number."""

from typing import Any

import numpy as np
from transformers import DataCollatorWithPadding

from trainyard.plan.labels import NUMBERS, SEVERAL, Labels
from trainyard.spec.tasks import TASKS as TASK_INFOS
from trainyard.train.tasks.base import Columns, Encoding, Task


def encode(rows: Columns, encoding: Encoding) -> Columns:
    """Token ids of a text or a pair of texts, and its label."""
    texts = [rows["text"], rows["text_pair"]] if "text_pair" in rows else [rows["text"]]
    encoded = dict(encoding.processor(*texts, **encoding.call))
    encoded["labels"] = label_ids(rows["label"], encoding.labels)
    return encoded


def label_ids(values: list[Any], labels: Labels) -> list[Any]:
    """Labels as the model's loss wants them: an id a row, or a list of floats, one for each label or output."""
    if labels.problem_type == NUMBERS:
        return [[float(cell) for cell in value] if isinstance(value, list) else float(value) for value in values]
    if labels.problem_type != SEVERAL:
        return [labels.index(value) for value in values]
    if labels.vectors:
        return [[float(cell) for cell in value] for value in values]
    chosen = [{labels.index(label) for label in value} for value in values]
    return [[float(index in row) for index in range(len(labels.names))] for row in chosen]


def class_metrics(labels: Labels) -> Any:
    """Accuracy and F1 for classes, F1 for several labels, error and correlation for numbers."""

    def single(prediction: Any) -> dict[str, float]:
        from sklearn import metrics

        ids = np.argmax(prediction.predictions, axis=-1)
        return {
            "accuracy": float(metrics.accuracy_score(prediction.label_ids, ids)),
            "f1": float(metrics.f1_score(prediction.label_ids, ids, average="macro", zero_division=0)),
        }

    def multi(prediction: Any) -> dict[str, float]:
        from sklearn import metrics

        chosen = prediction.predictions > 0  # a logit above 0 is a probability above one half
        truth = prediction.label_ids > 0.5
        return {
            "f1": float(metrics.f1_score(truth, chosen, average="micro", zero_division=0)),
            "accuracy": float(metrics.accuracy_score(truth, chosen)),
        }

    def regression(prediction: Any) -> dict[str, float]:
        from sklearn import metrics

        truth = prediction.label_ids
        values = prediction.predictions.reshape(truth.shape)
        return {
            "mse": float(metrics.mean_squared_error(truth, values)),
            "r2": float(metrics.r2_score(truth, values)) if len(truth) > 1 else 0.0,
        }

    kinds = {NUMBERS: regression, SEVERAL: multi}
    return kinds.get(labels.problem_type or "", single)


TASKS = (
    Task(
        info=TASK_INFOS["text-classification"],
        encode=encode,
        collator=lambda processor, model: DataCollatorWithPadding(processor),
        metrics=class_metrics,
    ),
)
