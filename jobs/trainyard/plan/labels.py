"""The labels of a task, and how a column writes them: as names, as ids, as vectors or as numbers.

`trainyard plan` and the training process share this module and plan.labelling, so that both decide alike and say it in
the same words. Neither imports torch or datasets.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trainyard.errors import JobError

CLASSES = "single_label_classification"
SEVERAL = "multi_label_classification"
NUMBERS = "regression"
PROBLEM_TYPES = (CLASSES, SEVERAL, NUMBERS)
"""transformers' values of a config's problem_type."""

IGNORED = -100
"""The tag that PyTorch's cross entropy leaves out, in data as in encoded rows."""

_SHOWN_NAMES = 10


@dataclass(frozen=True)
class Column:
    """A column of labels as it was read."""

    values: Sequence[Any]
    """One value a row: a name, a number, or a list of these."""
    class_names: tuple[str, ...] = ()
    """Names of a ClassLabel column, whose rows hold their ids; empty for other columns."""

    @cached_property
    def cells(self) -> list[tuple[int, Any]]:
        """Each single value with the number of its row, counted from 1; lists are taken apart."""
        return list(_cells(self.values))


@dataclass(frozen=True)
class Labels:
    """The labels of a task, as they go into the model's config, and how one column writes them."""

    names: tuple[str, ...] = ()
    """In the order of the model's ids. Empty for regression, and for tasks without labels."""
    problem_type: str | None = None
    """One of PROBLEM_TYPES; None for tags."""
    outputs: int = 1
    """Numbers that a regression gives for each row."""
    ids: tuple[str, ...] = ()
    """Where the column holds ids: the name of each id. Empty where it holds names."""
    vectors: bool = False
    """Whether each row of the column is a vector with one number a label."""

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @property
    def are_entities(self) -> bool:
        """Whether tags mark entities by B-, I-, O and their kin, so that whole entities can be scored."""
        prefixes = {name.split("-")[0] for name in self.names}
        return bool(prefixes & {"B", "I"}) and prefixes <= {"B", "I", "O", "E", "S", "L", "U"}

    def index(self, value: Any) -> int:
        """The model's id of one label as the column writes it; a tag may be IGNORED. Raises KeyError."""
        if value == IGNORED and self.problem_type is None:
            return IGNORED
        if not self.ids:
            return self._places[written(value)]
        return self._places[self.ids[_id(value, len(self.ids))]]


def written(value: Any) -> str:
    """A label's name as text: 2.0, which pandas makes of 2 in a column with a gap, is "2"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, also one that is written as a float."""
    return is_number(value) and math.isfinite(value) and float(value).is_integer()


def are_vectors(column: Column) -> bool:
    """Whether each row is a list with one number a label: 0 and 1, or something between them.

    Lists of words, ids of a ClassLabel column, and whole numbers other than 0 and 1 name the labels that a row has.
    """
    rows = column.values
    if column.class_names or not all(isinstance(row, list) for row in rows):
        return False
    if len(rows[0]) < 2 or len({len(row) for row in rows}) != 1:
        return False
    if not all(isinstance(cell, int | float) for _, cell in column.cells):
        return False
    return all(0 <= cell <= 1 for _, cell in column.cells) or not all(is_whole(cell) for _, cell in column.cells)


def shown(names: Sequence[str]) -> str:
    """The first names, for a message."""
    more = ", …" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def check_cells(column: Column, where: str, part: str) -> None:
    """Raises JobError with the row of a label that is missing, or of an id that has no name."""
    for row, cell in column.cells:
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            raise JobError(f"spec.{where}: row {row} has no {part}; every row needs one")
        if not column.class_names or cell == IGNORED:
            continue
        if cell == -1:
            raise JobError(
                f"spec.{where}: row {row} has the {part} -1, which in a ClassLabel column means that the row has no "
                "label, as in the test splits of GLUE. Use a split with labels, or leave these rows out"
            )
        if not 0 <= cell < len(column.class_names):
            raise JobError(
                f"spec.{where}: row {row} has the {part} {cell}, and the column names {len(column.class_names)} "
                f"({shown(column.class_names)})"
            )


def matched(labels: Labels, column: Column, where: str, part: str) -> Labels:
    """The labels with how this column writes them: a ClassLabel column and one of names are matched by name.

    Raises JobError with the row of a label that the model does not have.
    """
    check_cells(column, where, part)
    if labels.problem_type == NUMBERS:
        _check_numbers(labels, column, where, part)
        return labels
    if labels.problem_type == SEVERAL and are_vectors(column):
        _check_width(labels, column, where, part)
        return replace(labels, ids=(), vectors=True)
    _check_shape(labels, column, where, part)
    coded = replace(labels, ids=_ids(labels, column), vectors=False)
    for row, cell in column.cells:
        try:
            coded.index(cell)
        except KeyError:
            name = column.class_names[cell] if column.class_names else cell
            raise JobError(
                f"spec.{where}: row {row} has the {part} {name!r}, unknown to the model ({shown(labels.names)})"
            ) from None
    return coded


def _ids(labels: Labels, column: Column) -> tuple[str, ...]:
    """The names of a column's ids; empty when it holds names."""
    if column.class_names:
        numbered = labels.names == tuple(str(index) for index in range(len(labels.names)))
        # A model that was trained on bare ids knows no other names for them.
        return column.class_names if not numbered or set(column.class_names) <= set(labels.names) else labels.names
    cells = [cell for _, cell in column.cells if cell != IGNORED]
    if all(written(cell) in labels.names for cell in cells):
        return ()
    return labels.names if all(is_whole(cell) for cell in cells) else ()


def _id(value: Any, count: int) -> int:
    index = int(value)
    if not 0 <= index < count:
        raise KeyError(value)
    return index


def _check_numbers(labels: Labels, column: Column, where: str, part: str) -> None:
    for row, cell in column.cells:
        if not is_number(cell):
            raise JobError(f"spec.{where}: row {row} has the {part} {cell!r}, and a regression needs a number")
    for row, value in enumerate(column.values, 1):
        width = len(value) if isinstance(value, list) else 1
        if width != labels.outputs:
            raise JobError(f"spec.{where}: row {row} has {width} numbers, and the model gives {labels.outputs}")


def _check_width(labels: Labels, column: Column, where: str, part: str) -> None:
    width = len(column.values[0])
    if width != len(labels.names):
        raise JobError(
            f"spec.{where}: the vectors in {part} have {width} numbers, and the model has {len(labels.names)} labels "
            f"({shown(labels.names)})"
        )


def _check_shape(labels: Labels, column: Column, where: str, part: str) -> None:
    """Raises JobError with the row that is a list where one label is wanted, or the other way round."""
    lists = labels.problem_type != CLASSES
    for row, value in enumerate(column.values, 1):
        if isinstance(value, list) != lists:
            wanted = "a list of labels" if lists else "one label"
            raise JobError(f"spec.{where}: row {row} has the {part} {value!r}; each row needs {wanted}")


def _cells(values: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    for row, value in enumerate(values, 1):
        if isinstance(value, list):
            for cell in value:
                yield row, cell
        else:
            yield row, value
