"""JSON and CSV files as a data set: read as written, with a type for each column that all its values have."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from datasets.builder import Key

from trainyard.errors import JobError
from trainyard.plan import rows
from trainyard.plan.files import TextFile
from trainyard.plan.rows import Columns
from trainyard.spec.tasks import Column, TaskInfo

_TYPES = {"str": "string", "int": "int64", "float": "float64", "bool": "bool"}
_READER_VERSION = "1"
"""Part of the cache key of what was read: count it up when the same file would give other rows."""

_ROWS_AT_ONCE = 4096

survey = rows.survey


@dataclass(frozen=True, kw_only=True)
class Table:
    """The columns of a task in some files of text."""

    files: list[TextFile]
    limit: int | None
    columns: dict[str, str]
    """The name in the files of each column of the task."""
    task: TaskInfo
    where: str

    def read(self, survey: Columns) -> Dataset:
        """The rows, kept on disk in Arrow files. Raises JobError with the row of a value of another kind."""
        parts = {column.name: column for column in self.task.columns if column.name in self.columns}
        features = {name: self._feature(column, survey) for name, column in parts.items()}
        builder = _Builder(features=Features(features), table=self, config_id=f"rows-{self._fingerprint}")
        builder.download_and_prepare()
        data = builder.as_dataset(split="train")
        data._fingerprint = self._fingerprint  # the same rows are the same data set, for the cache of what is encoded
        return data

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows under the task's names."""
        for row in rows.rows(self.files, self.limit):
            converted = {part: row.get(name) for part, name in self.columns.items()}
            for part, convert in self._numbers.items():
                if converted[part] is not None:
                    converted[part] = convert(converted[part])
            yield converted

    @cached_property
    def _numbers(self) -> dict[str, Any]:
        """What makes numbers of the cells of a CSV column of labels."""
        label = self.task.label_column
        if label is None or any(file.format != "csv" for file in self.files):
            return {}
        name = self.columns[label]
        cells = (row.get(name) for row in rows.rows(self.files, self.limit))
        return {label: rows.typed(cells)}

    @cached_property
    def _fingerprint(self) -> str:
        parts = [_READER_VERSION, repr(self.columns), str(self.limit), self.task.name]
        for file in self.files:
            status = file.path.stat()
            parts.append(repr((file, str(file.path.resolve()), status.st_size, status.st_mtime_ns)))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def _feature(self, column: Column, survey: Columns) -> Value | List:
        """The type of a column that all its values have, or JobError."""
        if column.name in self._numbers:
            return Value(_TYPES[self._numbers[column.name].__name__])
        kinds = survey.kinds[self.columns[column.name]] - {"NoneType"}
        kind = _common(kinds)
        if kind is None:
            self._refuse_mixed(column)
        assert kind is not None
        if kind.startswith("list of "):
            return List(Value(_TYPES[kind.removeprefix("list of ")]))
        return Value(_TYPES[kind])

    def _refuse_mixed(self, column: Column) -> None:
        """Raises JobError with the first row whose value is of another kind than those before."""
        seen = Columns()
        first: Any = None
        for number, row in enumerate(rows.rows(self.files, self.limit), 1):
            value = row.get(self.columns[column.name])
            seen.add({column.name: value})
            first = value if first is None else first
            if _common(seen.kinds[column.name] - {"NoneType"}) is None:
                self._refuse(column, number, value, first)
        raise AssertionError("the survey saw a value that is not there now")

    def _refuse(self, column: Column, number: int, value: Any, first: Any) -> None:
        before = f", and the rows before hold values like {first!r}" if value is not first else ""
        fix = ' Write a number that is text in quotes: "5".' if column.content in ("text", "words") else ""
        raise JobError(f"spec.{self.where}: row {number}: {column.name} is {value!r}{before}.{fix}")


@dataclass
class _BuilderConfig(datasets.BuilderConfig):
    table: Table | None = None
    features: Features | None = None


class _Builder(datasets.ArrowBasedBuilder):
    """Writes the rows of a table into Arrow files of datasets' cache, some thousand at a time."""

    BUILDER_CONFIG_CLASS = _BuilderConfig

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self.config.features)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name="train", gen_kwargs={"table": self.config.table})]

    def _generate_tables(self, table: Table) -> Iterator[tuple[Key, pa.Table]]:
        schema = self.config.features.arrow_schema
        every = table.rows()
        for number in count():
            batch = list(islice(every, _ROWS_AT_ONCE))
            if not batch:
                return
            yield Key(0, number), pa.Table.from_pylist(batch, schema=schema)


def _common(kinds: set[str]) -> str | None:
    """The one kind that holds all values of a column: a whole number is also a float. None when there is none."""
    lists = {kind for kind in kinds if kind.startswith("list")}
    if lists and lists != kinds:
        return None
    inner = {kind.removeprefix("list of ") for kind in kinds} - {"list", "NoneType"}
    prefix = "list of " if lists else ""
    if not inner:
        return f"{prefix}str"  # only empty cells, or empty lists
    if inner == {"int", "float"}:
        return f"{prefix}float"
    kind = inner.pop()
    return f"{prefix}{kind}" if not inner and kind in _TYPES else None
