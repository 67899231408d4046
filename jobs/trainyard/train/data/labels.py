"""The labels of a data set, decided by plan.labelling from its column."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from trainyard.plan import labelling
from trainyard.plan.labels import CLASSES, NUMBERS, Column, Labels, matched
from trainyard.spec.tasks import TaskInfo
from trainyard.train.choices import Choices


def decide(
    train: Dataset, task: TaskInfo, config: dict[str, Any], model_names: Sequence[str], choices: Choices
) -> Labels:
    """The labels of the training rows, in the order of the model's ids. Raises JobError with the row or the field."""
    if task.label_column is None:
        return Labels()
    wish = labelling.Wish(config=config, model_names=tuple(model_names))
    labels, lines = labelling.decided(_column(train, task.label_column), task, wish)
    for name, choice in lines.items():
        choices.add(name, choice)
    return labels


def match(data: Dataset, task: TaskInfo, labels: Labels, where: str) -> Labels:
    """The labels with how these rows write them. Raises JobError with the row of one that the model does not have."""
    if task.label_column is None:
        return labels
    return matched(labels, _column(data, task.label_column), where, task.label_column)


def of_model(config: Any, task: TaskInfo) -> Labels:
    """The labels of a trained model, from its config. Without a problem_type one output is a number, more are classes.

    That is how transformers chooses the loss of such a model, too.
    """
    names = tuple(str(name) for _, name in sorted(config.id2label.items()))
    if task.label_kind == "none":
        return Labels()
    if task.label_kind == "tags":
        return Labels(names)
    problem_type = config.problem_type or (NUMBERS if config.num_labels == 1 else CLASSES)
    if problem_type == NUMBERS:
        return Labels((), NUMBERS, config.num_labels)
    return Labels(names, problem_type)


def _column(data: Dataset, name: str) -> Column:
    feature = data.features[name]
    inner = getattr(feature, "feature", feature)
    return Column(data[name][:], tuple(getattr(inner, "names", None) or ()))
