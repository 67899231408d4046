"""Mistakes in rows: an empty cell, a value of the wrong kind, another number of tags than of words."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from trainyard.errors import JobError
from trainyard.spec.tasks import Column, TaskInfo


def check_rows(data: Dataset, task: TaskInfo, where: str) -> None:
    """Raises JobError with the first row that has a mistake."""
    for column in task.columns:
        if column.name in data.column_names:
            _check_column(data, column, where)
    lists = [column.name for column in task.columns if column.content in ("words", "tags")]
    if len(lists) > 1:
        _check_lengths(data, lists, where)


def _check_column(data: Dataset, column: Column, where: str) -> None:
    if column.content == "label":
        return  # plan.labels checks labels, whatever they are
    cells = _arrow(data, column.name)
    if cells.null_count:
        row = cells.is_null().to_pylist().index(True) + 1
        raise JobError(f"spec.{where}: row {row} has no {column.name}; every row needs one")
    kind = cells.type
    wanted = _WANTED.get(column.content)
    if wanted is None:
        return
    fits, words = wanted
    if not fits(kind):
        first = data[0][column.name]
        raise JobError(f"spec.{where}: {column.name} must be {words}, and row 1 holds {first!r}")
    if column.content == "tags":
        _check_tags(cells, where)


def _check_tags(cells: pa.ChunkedArray, where: str) -> None:
    if not pc.list_flatten(cells).null_count:
        return
    row = next(number for number, tags in enumerate(cells.to_pylist(), 1) if None in tags)
    raise JobError(f"spec.{where}: row {row}: a tag is null; write O for a word that is no entity")


def _check_lengths(data: Dataset, names: list[str], where: str) -> None:
    """Lists that belong together have one length, and it is not 0."""
    columns = [pc.list_value_length(_arrow(data, name)).to_pylist() for name in names]
    for row, sizes in enumerate(zip(*columns, strict=True), 1):
        if len(set(sizes)) > 1:
            counts = " and ".join(f"{size} {name}" for size, name in zip(sizes, names, strict=True))
            raise JobError(f"spec.{where}: row {row} has {counts}; each token needs one tag")
        if not sizes[0]:
            raise JobError(f"spec.{where}: row {row} has no {names[0]}: leave it out")


def _arrow(data: Dataset, name: str) -> pa.ChunkedArray:
    """A column in Arrow's form, in the order of the rows."""
    return data.select_columns([name]).with_format("arrow")[:].column(0)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_words(kind: pa.DataType) -> bool:
    return _is_list(kind) and _is_text(kind.value_type)


_WANTED: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "text": (_is_text, "text"),
    "words": (_is_words, "a list of words in each row"),
    "tags": (_is_list, "a list in each row"),
}
