"""What can be learnt of a job's data in a second: how many rows it has, and what its labels are.

Only for files on this machine. The training process reads the same files by the same functions, so that both say the
same; what cannot be read cheaply here, it finds out there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.errors import JobError
from trainyard.plan import columns, configfile, files, rows
from trainyard.plan.choice import Choice
from trainyard.plan.labelling import Wish, decided
from trainyard.plan.labels import Column, matched
from trainyard.plan.metric import check_metric
from trainyard.spec.model import Data, Evaluation, Model, Source, Spec
from trainyard.spec.tasks import TASKS, TaskInfo

_MAX_COUNTED_BYTES = 2 * 1024**3
_MAX_READ_BYTES = 16 * 1024**2
"""Bytes of data that are read for their labels: about a second's work."""


def count(source: Source | Evaluation, where: str) -> int | None:
    """Rows of a source, at most maxSamples; None when they cannot be counted cheaply from here.

    Raises JobError with the file and the line for one that cannot be read.
    """
    paths = _files(source, _MAX_COUNTED_BYTES)
    counts = [_count(path, source, where) for path in paths]
    if not counts or None in counts:
        return None
    total = sum(number for number in counts if number is not None)
    return min(total, source.max_samples) if source.max_samples else total


def label_lines(spec: Spec) -> Mapping[str, Choice[str]]:
    """The lines of the plan that say what the labels are; empty when that cannot be known cheaply from here.

    Raises JobError with the row or the field, as the training process would.
    """
    assert spec.data is not None
    assert spec.model is not None
    task = TASKS.get(str(spec.task))
    if task is None or task.label_column is None:
        return {}
    train, evaluation = _named_sources(spec.data)
    column = _label_column(train, task)
    if column is None or not column.values:
        return {}
    wish = Wish(config=spec.model.config, model_names=_model_names(spec.model))
    labels, lines = decided(column, task, wish)
    check_metric(spec, task, labels)
    measured = _label_column(evaluation, task) if evaluation is not None else None
    if measured is not None and measured.values:
        matched(labels, measured, "data.evaluation", task.label_column)
    return lines


def _files(source: Source | Evaluation, limit: int) -> list[Path]:
    """The files of a source on this machine; none when they are larger than the limit, or when it is a folder."""
    paths = files.matching(source.source or "")
    if any(path.is_dir() for path in paths) or sum(path.stat().st_size for path in paths) > limit:
        return []
    return paths


def _count(path: Path, source: Source | Evaluation, where: str) -> int | None:
    text = files.text_file(path, source, where)
    if text is not None:
        return rows.count(text)
    if files.format_of(path, source.format) == "parquet":
        table = _parquet(path, where)
        return int(table.metadata.num_rows) if table is not None else None
    return None


@dataclass(frozen=True)
class _Named:
    """A source with its field, and with the columns that the manifest names for it."""

    source: Source | Evaluation
    where: str
    columns: dict[str, str]

    def label(self, names: list[str], task: TaskInfo) -> str:
        """The name of the column of labels. Raises JobError when a column of the task is not there."""
        chosen = columns.chosen(names, task, self.columns, self.where, str(self.source.source))
        return chosen[str(task.label_column)]


def _named_sources(data: Data) -> tuple[_Named, _Named | None]:
    train = _Named(data.train, "data.train", data.train.columns)
    if data.evaluation is None or data.evaluation.source is None:
        return train, None
    named = {**data.train.columns, **data.evaluation.columns}
    return train, _Named(data.evaluation, "data.evaluation", named)


def _label_column(named: _Named, task: TaskInfo) -> Column | None:
    source = named.source
    paths = _files(source, _MAX_READ_BYTES)
    texts = [files.text_file(path, source, named.where) for path in paths]
    readable = [text for text in texts if text is not None]
    if paths and len(readable) == len(paths):
        return _of_texts(readable, named, task)
    if len(paths) == 1 and files.format_of(paths[0], source.format) == "parquet":
        return _of_parquet(paths[0], named, task)
    return None


def _of_texts(texts: list[files.TextFile], named: _Named, task: TaskInfo) -> Column | None:
    read = list(rows.rows(texts, named.source.max_samples))
    names = list(dict.fromkeys(name for row in read for name in row))
    if not names:
        return None
    label = named.label(names, task)
    values = [row.get(label) for row in read]
    if all(text.format == "csv" for text in texts):
        convert = rows.typed(values)
        values = [None if value is None else convert(value) for value in values]
    return Column(values)


def _of_parquet(path: Path, named: _Named, task: TaskInfo) -> Column | None:
    table = _parquet(path, named.where)
    if table is None:
        return None
    schema = table.schema_arrow
    label = named.label(schema.names, task)
    values = table.read(columns=[label]).column(label).slice(0, named.source.max_samples).to_pylist()
    return Column(values, _class_names(schema.metadata or {}, label))


def _class_names(metadata: Mapping[bytes, bytes], name: str) -> tuple[str, ...]:
    """The names of a ClassLabel column, which `datasets` keeps in the metadata of its files."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][name]
    except (KeyError, ValueError, TypeError):
        return ()
    inner = feature.get("feature", feature)
    return tuple(inner.get("names") or ())


def _parquet(path: Path, where: str) -> Any:
    """An open Parquet file, or None where pyarrow is not installed. Raises JobError for a file that is damaged."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        return None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"spec.{where}: {path} is no Parquet file, or a damaged one: {error}") from error


def _model_names(model: Model) -> tuple[str, ...]:
    """The labels of a model on this machine, in the order of its ids; empty where they are not known."""
    names = configfile.read(model).get("id2label")
    if model.from_config or not isinstance(names, dict):
        return ()
    try:
        by_id = {int(key): str(name) for key, name in names.items()}
    except ValueError:
        return ()
    return tuple(by_id[key] for key in sorted(by_id))
