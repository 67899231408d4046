"""token-classification: a tag for each word."""

from typing import Any

import numpy as np
from transformers import DataCollatorForTokenClassification

from trainyard.errors import JobError
from trainyard.plan.labels import IGNORED, Labels
from trainyard.spec.tasks import TASKS as TASK_INFOS
from trainyard.train.tasks.base import Columns, Encoding, Task


def encode(rows: Columns, encoding: Encoding) -> Columns:
    """Token ids of words, and the tag of each word at its first token; its other tokens are left out of the loss."""
    if not getattr(encoding.processor, "is_fast", False):
        raise JobError("token-classification needs to know which word a token belongs to; use a fast tokenizer")
    batch = encoding.processor(rows["tokens"], is_split_into_words=True, **encoding.call)
    labels = [
        _aligned([encoding.labels.index(tag) for tag in tags], batch.word_ids(index))
        for index, tags in enumerate(rows["tags"])
    ]
    return {**batch, "labels": labels}


def _aligned(tags: list[int], words: list[int | None]) -> list[int]:
    pairs = zip([None, *words], words, strict=False)
    return [tags[word] if word is not None and word != before else IGNORED for before, word in pairs]


def tag_metrics(labels: Labels) -> Any:
    """Precision, recall and F1 over whole entities for BIO tags (seqeval), over single tags (macro) for others.

    And the accuracy over all words.
    """
    return _entity_metrics(labels) if labels.are_entities else _tag_metrics


def _entity_metrics(labels: Labels) -> Any:
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    def compute(prediction: Any) -> dict[str, float]:
        ids = np.argmax(prediction.predictions, axis=-1)
        counted = prediction.label_ids != IGNORED
        rows = list(zip(ids, prediction.label_ids, counted, strict=True))
        predicted = [[labels.names[tag] for tag in row[mask]] for row, _, mask in rows]
        truth = [[labels.names[tag] for tag in row[mask]] for _, row, mask in rows]
        scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
        computed = {name: float(score(truth, predicted, zero_division=0)) for name, score in scores.items()}
        return {**computed, "accuracy": float(accuracy_score(truth, predicted))}

    return compute


def _tag_metrics(prediction: Any) -> dict[str, float]:
    from sklearn import metrics

    counted = prediction.label_ids != IGNORED
    predicted = np.argmax(prediction.predictions, axis=-1)[counted]
    truth = prediction.label_ids[counted]
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, predicted, average="macro", zero_division=0
    )
    accuracy = metrics.accuracy_score(truth, predicted)
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "accuracy": float(accuracy)}


TASKS = (
    Task(
        info=TASK_INFOS["token-classification"],
        encode=encode,
        collator=lambda processor, model: DataCollatorForTokenClassification(processor),
        metrics=tag_metrics,
    ),
)
