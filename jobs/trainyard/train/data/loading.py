"""The data sets of a job: training rows, evaluation rows, and how each writes its labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from trainyard.errors import JobError
from trainyard.plan.labels import Labels
from trainyard.spec.model import Evaluation, Spec
from trainyard.train.choices import Choices
from trainyard.train.data import checks, labels, reading
from trainyard.train.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class RawData:
    """Rows under the names of the task's columns, and their labels."""

    train: Dataset
    evaluation: Dataset | None
    labels: Labels
    """The labels of the model, and how the training rows write them."""
    evaluation_labels: Labels
    """The same labels, and how the evaluation rows write them."""


def load(spec: Spec, task: Task, model_names: Sequence[str], choices: Choices) -> RawData:
    """The data sets of a job. `model_names`: the labels of the model that is fine-tuned, in the order of its ids.

    Raises JobError with the field, the row and the fix, and StorageError.
    """
    train = _rows(spec, task, "train")
    of_train = labels.decide(train, task.info, spec.model.config, model_names, choices)
    wanted = spec.data.evaluation
    if wanted is not None and wanted.fraction is not None:
        train, evaluation = _split(train, wanted)
        return RawData(train=train, evaluation=evaluation, labels=of_train, evaluation_labels=of_train)
    if wanted is None:
        return RawData(train=train, evaluation=None, labels=of_train, evaluation_labels=of_train)
    evaluation = _rows(spec, task, "evaluation")
    matched = labels.match(evaluation, task.info, of_train, "data.evaluation")
    return RawData(train=train, evaluation=evaluation, labels=of_train, evaluation_labels=matched)


def load_for_model(spec: Spec, task: Task, config: Any) -> tuple[Dataset, Labels]:
    """The rows to measure a trained model on, and how they write the labels of its config.

    They are the evaluation data of the spec, or its training data when it has no other. Raises as load().
    """
    wanted = spec.data.evaluation
    where = "data.train"
    if wanted is not None and wanted.fraction is not None:
        rows = _split(_rows(spec, task, "train"), wanted)[1]
    elif wanted is not None:
        where = "data.evaluation"
        rows = _rows(spec, task, "evaluation")
    else:
        rows = _rows(spec, task, "train")
    return rows, labels.match(rows, task.info, labels.of_model(config, task.info), where)


def _rows(spec: Spec, task: Task, which: str) -> Dataset:
    rows = reading.read(spec, task.info, which)
    checks.check_rows(rows, task.info, f"data.{which}")
    return rows


def _split(train: Dataset, wanted: Evaluation) -> tuple[Dataset, Dataset]:
    if len(train) < 2:
        raise JobError(f"spec.data.train has {len(train)} row: too few to keep a fraction for evaluation")
    parts = train.train_test_split(test_size=wanted.fraction, seed=wanted.seed)
    evaluation = parts["test"]
    if wanted.max_samples:
        evaluation = evaluation.select(range(min(wanted.max_samples, len(evaluation))))
    return parts["train"], evaluation
