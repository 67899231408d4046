"""token-classification: a tag for each word."""

from typing import Any

import numpy as np
from transformers import DataCollatorForTokenClassification

from trainyard.errors import JobError
from trainyard.spec.tasks import TASKS as TASK_INFOS
from trainyard.train.tasks.base import Columns, Encoding, Labels, Task

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""


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
    """Entity-level precision, recall and F1 for BIO tags (seqeval), and the accuracy over all words."""
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    def compute(prediction: Any) -> dict[str, float]:
        ids = np.argmax(prediction.predictions, axis=-1)
        kept = [
            [(p, t) for p, t in zip(*row, strict=True) if t != IGNORED]
            for row in zip(ids, prediction.label_ids, strict=True)
        ]
        found = [[labels.names[p] for p, _ in row] for row in kept]
        truth = [[labels.names[t] for _, t in row] for row in kept]
        scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
        computed = {name: float(score(truth, found, zero_division=0)) for name, score in scores.items()}
        return {**computed, "accuracy": float(accuracy_score(truth, found))}

    return compute


TASKS = (
    Task(
        info=TASK_INFOS["token-classification"],
        encode=encode,
        collator=lambda processor, model: DataCollatorForTokenClassification(processor),
        metrics=tag_metrics,
    ),
)
