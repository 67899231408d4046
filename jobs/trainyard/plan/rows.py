"""Rows of JSON and CSV files, exactly as they are written. No torch, no datasets.

A reader that guesses types turns the text 007 into 7, NA into nothing and 2024-01-01 into a date. Here a CSV cell is
text, an empty one is None, and a JSON value is what JSON says. Every mistake names its line.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from trainyard.errors import JobError
from trainyard.plan.files import TextFile

Row = dict[str, Any]

_HUGE_CELL = 2**31 - 1
"""Characters of the largest CSV cell; Python's csv module stops at 131,072 otherwise."""


def read(file: TextFile) -> Iterator[Row]:
    """The rows of a file. Raises JobError with the line for text that is not of the format."""
    return _csv(file) if file.format == "csv" else _json(file)


def count(file: TextFile) -> int | None:
    """How many rows a file has; None for one list of objects, which would have to be read whole."""
    if file.format == "csv":
        return max(0, sum(1 for _, cells in _records(file) if cells) - 1)
    total = 0
    for line in file.lines():
        text = line.strip()
        if not total and text.startswith("["):
            return None
        total += bool(text)
    return total


@dataclass
class Columns:
    """The columns of some files: their names in order, and which kinds of values they hold."""

    kinds: dict[str, set[str]] = field(default_factory=dict)
    """By name: str, int, float, bool, NoneType, dict; `list of …` for each kind in a list."""
    rows: int = 0

    @property
    def names(self) -> list[str]:
        """The names, in the order in which they occur first."""
        return list(self.kinds)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        for name, value in row.items():
            kinds = self.kinds.setdefault(name, set())
            if isinstance(value, list):
                kinds.add("list")
                kinds.update(f"list of {type(each).__name__}" for each in value)
            else:
                kinds.add(type(value).__name__)


def survey(files: Iterable[TextFile], limit: int | None) -> Columns:
    """The columns of the first rows of files, at most `limit`. Raises JobError with the line."""
    columns = Columns()
    for file in files:
        columns.kinds.update({name: set() for name in header(file) if name not in columns.kinds})
    for row in rows(files, limit):
        columns.add(row)
    return columns


def rows(files: Iterable[TextFile], limit: int | None) -> Iterator[Row]:
    """The rows of some files one after the other, at most `limit`."""
    every = (row for file in files for row in read(file))
    return islice(every, limit) if limit is not None else every


def header(file: TextFile) -> list[str]:
    """The column names of a CSV file, which it has also without rows; none for other formats."""
    if file.format != "csv":
        return []
    first = next(_records(file), None)
    return first[1] if first is not None else []


def number(text: str) -> Callable[[str], Any]:
    """What makes a number of text that is written as the number itself is: int, float; str where it is neither.

    A whole number has at most 18 digits, which 64 bits hold; more digits are a name.
    """
    if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text):
        return int
    if re.fullmatch(r"-?[0-9]+\.[0-9]*(e[+-]?[0-9]+)?|-?[0-9]+e[+-]?[0-9]+", text, re.IGNORECASE):
        return float
    return str


def typed(cells: Iterable[str | None]) -> Callable[[str], Any]:
    """What the cells of a CSV column of labels are: int, float, or str where one of them is no plain number.

    007 and 1,5 are text. A column with floats among whole numbers holds floats.
    """
    kinds = {number(cell) for cell in cells if cell is not None}
    if str in kinds or not kinds:
        return str
    return float if float in kinds else int


def _csv(file: TextFile) -> Iterator[Row]:
    records = _records(file)
    names = next(records, (0, []))[1]
    _check_header(file, names)
    for line, cells in records:
        if not cells:
            continue  # an empty line
        if len(cells) > len(names):
            raise JobError(
                f"{file.place}: line {line} has {len(cells)} cells and the header {len(names)}. Put a cell that holds "
                f"{file.delimiter!r} into quotes, or write the right delimiter"
            )
        padded = cells + [""] * (len(names) - len(cells))
        yield {name: cell or None for name, cell in zip(names, padded, strict=True)}


def _records(file: TextFile) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each record."""
    csv.field_size_limit(_HUGE_CELL)
    reader = csv.reader(file.lines(), delimiter=file.delimiter, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise JobError(f"{file.place}: line {reader.line_num}: {error}") from error


def _check_header(file: TextFile, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise JobError(f"{file.place}: two columns are named {twice!r}")
    if len(names) == 1:
        other = next((sign for sign in (";", "\t", "|", ",") if sign in names[0]), None)
        if other is not None:
            quoted = json.dumps(other)
            raise JobError(
                f"{file.place}: the header is one column, {names[0]!r}. Is {quoted} the delimiter? "
                f"Then write {file.where}.delimiter: {quoted}"
            )


def _json(file: TextFile) -> Iterator[Row]:
    lines = enumerate(file.lines(), 1)
    begun = False
    for line_number, line in lines:
        text = line.strip()
        if not begun and text.startswith("["):
            yield from _array(file, line + "".join(rest for _, rest in lines))
            return
        if text:
            begun = True
            yield _object(file, line_number, text)


def _object(file: TextFile, line_number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError as error:
        reason = getattr(error, "msg", str(error))
        column = getattr(error, "colno", 1)
        whole = "; write one JSON object a line, or one list of objects" if line_number == 1 else ""
        raise JobError(f"{file.place}: line {line_number} is not JSON: {reason} at column {column}{whole}") from error
    if not isinstance(value, dict):
        raise JobError(f'{file.place}: line {line_number} is {_kind(value)}, not an object like {{"text": …}}')
    return _without_nan(value)


def _array(file: TextFile, text: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise JobError(f"{file.place}: line {line} is not JSON: {getattr(error, 'msg', error)}") from error
    for index, value in enumerate(values, 1):
        if isinstance(value, str):
            yield {"text": value}  # a list of texts
        elif isinstance(value, dict):
            yield _without_nan(value)
        else:
            raise JobError(f'{file.place}: item {index} is {_kind(value)}, not an object like {{"text": …}}')


def _without_nan(row: Row) -> Row:
    """The row with None for NaN, which pandas writes for an empty cell."""
    for name, value in row.items():
        if isinstance(value, float) and math.isnan(value):
            row[name] = None
    return row


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
