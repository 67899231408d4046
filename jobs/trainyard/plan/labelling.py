"""The decision what a column of labels is: classes, several labels, tags or numbers; with its reason."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.errors import JobError
from trainyard.plan.choice import Choice
from trainyard.plan.labels import (
    CLASSES,
    IGNORED,
    NUMBERS,
    PROBLEM_TYPES,
    SEVERAL,
    Column,
    Labels,
    are_vectors,
    check_cells,
    is_number,
    is_whole,
    matched,
    shown,
    written,
)
from trainyard.spec.tasks import TaskInfo

_AMOUNTS = "for amounts, write model.config: {problem_type: regression}"
_CONFIG = "spec.model.config"
_TRAIN = "data.train"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What manifest and model say of the labels before the data is read."""

    config: Mapping[str, Any]
    """spec.model.config."""
    model_names: tuple[str, ...] = ()
    """Labels of the model that is fine-tuned, in the order of its ids."""


def decided(column: Column, task: TaskInfo, wish: Wish) -> tuple[Labels, dict[str, Choice[str]]]:
    """The labels that a column of training rows holds, and the lines that say so, by name.

    Raises JobError with the row, or with the field of model.config that does not fit.
    """
    part = str(task.label_column)
    if task.label_kind == "tags":
        labels, line = decide_tags(column, wish, _TRAIN, part)
        return labels, {"labels": line, "score": tag_scores(labels)}
    labels, line = decide(column, wish, _TRAIN, part)
    return labels, {"labels": line}


def decide_tags(column: Column, wish: Wish, where: str, part: str) -> tuple[Labels, Choice[str]]:
    """The tags of token classification, and the line that says so. Raises JobError with the row."""
    check_cells(column, where, part)
    names, order = _ordered(_names(column), wish, column)
    labels = matched(Labels(names), column, where, part)
    return labels, Choice(f"{len(names)} tags ({shown(names)})", f"the column {_what(column)}{order}")


def decide(column: Column, wish: Wish, where: str, part: str) -> tuple[Labels, Choice[str]]:
    """The labels of a classifier or regression, and the line that says so. Raises JobError with the row, or the field.

    model.config wins: its problem_type, and the names and the order of its id2label. What does not fit the data is
    refused, with what would fit.
    """
    check_cells(column, where, part)
    kind = _kind(column, wish, part)
    if kind == NUMBERS:
        return _numbers(column, wish, where, part)
    if kind == SEVERAL and are_vectors(column):
        names, order = _ordered(_vector_names(column, wish), wish, column)
    else:
        names, order = _ordered(_names(column), wish, column)
    if not names:
        raise JobError(f"spec.{where}: no row has a {part}: all lists in the column are empty")
    if len(names) < 2:
        raise JobError(f"spec.{where}: {part} has a single value, {names[0]!r}; a classifier needs two or more")
    _check_count(names, wish)
    labels = matched(Labels(names, kind), column, where, part)
    what = "labels, several a row" if kind == SEVERAL else "classes"
    reason = f"the column {_what(column)}{order}"
    if kind == CLASSES and _are_whole(column) and not wish.config.get("problem_type"):
        reason = f"{reason}; {_AMOUNTS}"
    return labels, Choice(f"{len(names)} {what} ({shown(names)})", reason)


def tag_scores(labels: Labels) -> Choice[str]:
    """Which scores fit the tags: scores over entities need tags that mark where an entity begins and ends."""
    if labels.are_entities:
        return Choice("F1 over entities", "the tags are BIO")
    return Choice("macro F1 over tags", f"the tags are not BIO ({shown(labels.names)})")


def given_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels as the manifest's id2label or label2id order them; empty when it has neither. Raises JobError."""
    by_id = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    by_name = {int(index): str(name) for name, index in (config.get("label2id") or {}).items()}
    chosen = by_id or by_name
    if by_id and by_name and by_id != by_name:
        raise JobError(f"{_CONFIG}: id2label and label2id contradict each other; keep id2label only")
    if chosen and sorted(chosen) != list(range(len(chosen))):
        raise JobError(f"{_CONFIG}: the ids of the labels must be 0, 1, 2, … without a gap")
    return tuple(chosen[index] for index in sorted(chosen))


def _kind(column: Column, wish: Wish, part: str) -> str:
    """The problem type: the manifest's where it fits the values, else what the values are. Raises JobError."""
    asked = wish.config.get("problem_type")
    if asked is not None and asked not in PROBLEM_TYPES:
        raise JobError(f"{_CONFIG}.problem_type: there is no {asked!r}; write one of {', '.join(PROBLEM_TYPES)}")
    fitting = _fitting(column)
    if asked is not None and asked not in fitting:
        fits = " or ".join(fitting)
        raise JobError(f"{_CONFIG}.problem_type is {asked}, and {part} {_what(column)}: write {fits}, or leave it out")
    return asked or fitting[0]


def _fitting(column: Column) -> tuple[str, ...]:
    """The problem types that the values allow; the first is taken where the manifest says nothing."""
    lists = isinstance(column.values[0], list)
    if lists and are_vectors(column):
        within = all(0 <= cell <= 1 for _, cell in column.cells)
        return (SEVERAL, NUMBERS) if within else (NUMBERS,)
    if lists:
        return (SEVERAL,)
    if column.class_names or not all(is_number(cell) for _, cell in column.cells):
        return (CLASSES,)
    return (CLASSES, NUMBERS) if _are_whole(column) else (NUMBERS,)


def _numbers(column: Column, wish: Wish, where: str, part: str) -> tuple[Labels, Choice[str]]:
    first = column.values[0]
    outputs = len(first) if isinstance(first, list) else 1
    count = wish.config.get("num_labels")
    if count is not None and count != outputs:
        raise JobError(
            f"{_CONFIG}.num_labels is {count}, and {part} {_what(column)}, which makes a regression with {outputs} "
            f"output{'s' if outputs > 1 else ''}; leave it out, or give whole numbers or names for classes"
        )
    asked = f"{_CONFIG.removeprefix('spec.')}.problem_type"
    reason = asked if wish.config.get("problem_type") else f"the column {_what(column)}"
    shape = "a number for each row" if outputs == 1 else f"{outputs} numbers for each row"
    return matched(Labels((), NUMBERS, outputs), column, where, part), Choice(f"regression, {shape}", reason)


def _names(column: Column) -> tuple[str, ...]:
    """The names in a column: those of ClassLabel in its order, else those that occur, sorted."""
    if column.class_names:
        return column.class_names
    names = {written(cell) for _, cell in column.cells if cell != IGNORED}
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _vector_names(column: Column, wish: Wish) -> tuple[str, ...]:
    width = len(column.values[0])
    named = given_names(wish.config) or wish.model_names
    if all(re.fullmatch("LABEL_[0-9]+", name) for name in named):
        named = ()  # transformers' names for labels that nobody has named
    return named if len(named) == width else tuple(str(index) for index in range(width))


def _ordered(names: tuple[str, ...], wish: Wish, column: Column) -> tuple[tuple[str, ...], str]:
    """The names in the model's order, and the words for where that order is from."""
    chosen = given_names(wish.config)
    if chosen:
        if not set(names) <= set(chosen) and not _are_ids(column, len(chosen)):
            raise JobError(
                f"{_CONFIG} names the labels {shown(chosen)}, and the data has {shown(names) or 'none'}; "
                "name the same, or none: they are found in the data"
            )
        return chosen, "; named by model.config"
    count = wish.config.get("num_labels")
    if isinstance(count, int) and count > len(names) and _are_ids(column, count):
        return tuple(str(index) for index in range(count)), "; model.config.num_labels"
    if set(wish.model_names) == set(names) and wish.model_names != names:
        return wish.model_names, "; in the order of the model"
    return names, ""


def _check_count(names: tuple[str, ...], wish: Wish) -> None:
    count = wish.config.get("num_labels")
    if count is None or count == len(names):
        return
    fix = f"leave it out; {_AMOUNTS}" if count == 1 else "leave it out"
    raise JobError(f"{_CONFIG}.num_labels is {count}, and the data has {len(names)} labels ({shown(names)}); {fix}")


def _are_whole(column: Column) -> bool:
    return not column.class_names and all(is_whole(cell) for _, cell in column.cells)


def _are_ids(column: Column, count: int) -> bool:
    """Whether a column of whole numbers can be ids of so many labels."""
    return _are_whole(column) and all(0 <= cell < count for _, cell in column.cells if cell != IGNORED)


def _what(column: Column) -> str:
    """What a column holds, in words."""
    cells: Sequence[Any] = [cell for _, cell in column.cells]
    if column.class_names:
        what = "ids of a ClassLabel column"
    elif all(isinstance(cell, bool) for cell in cells):
        what = "true and false"
    elif not all(is_number(cell) for cell in cells):
        what = "words"
    elif not all(is_whole(cell) for cell in cells):
        what = "numbers with fractions"
    elif any(isinstance(cell, float) for cell in cells):
        what = "floats that are all whole numbers"
    else:
        what = "whole numbers"
    if are_vectors(column):
        return f"holds vectors of {len(column.values[0])} numbers"
    return f"holds lists of {what}" if isinstance(column.values[0], list) else f"holds {what}"
