"""Stage 2: the data, from any source to encoded data sets with the labels found in them."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute
from datasets import Dataset, DatasetDict

from trainyard.errors import JobError
from trainyard.spec.model import Evaluation, Source, Spec
from trainyard.train.processor import first_line
from trainyard.train.sources import is_remote, local_folder
from trainyard.train.tasks.base import Encoding, Labels, Task

_READERS = {"json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv", "parquet": "parquet"}
_DEFAULT_BLOCK = 512
_HUGE = 1_000_000
"""A tokenizer that knows no limit says 10**30."""


@dataclass(frozen=True)
class RawData:
    """Rows under the names of the task's parts, and the labels found in the training data."""

    train: Dataset
    evaluation: Dataset | None
    labels: Labels


def load(spec: Spec, task: Task) -> RawData:
    """The data sets of a job. Raises JobError for a missing file or column, no rows, or an unknown label."""
    train = _select(spec, task, spec.data.train, "data.train", {}, "train")
    labels = _labels(train, task, spec.model.config)
    evaluation, wanted = None, spec.data.evaluation
    if wanted is not None and wanted.fraction is not None:
        if len(train) < 2:
            raise JobError(f"spec.data.train has {len(train)} row: too few to keep a fraction for evaluation")
        parts = train.train_test_split(test_size=wanted.fraction, seed=wanted.seed)
        train, evaluation = parts["train"], parts["test"]
        if wanted.max_samples:
            evaluation = evaluation.select(range(min(wanted.max_samples, len(evaluation))))
    elif wanted is not None:
        columns = spec.data.train.columns
        evaluation = _select(spec, task, wanted, "data.evaluation", columns, "validation")
        check_labels(evaluation, task, labels)
    return RawData(train, evaluation, labels)


def encode(data: Dataset, task: Task, encoding: Encoding) -> Dataset:
    """The data set that Trainer reads: encoded once and cached on disk, or on the fly for lazy tasks."""
    if task.lazy:
        return data.with_transform(lambda rows: task.encode(rows, encoding))
    encoded = data.map(
        task.encode,
        batched=True,
        fn_kwargs={"encoding": encoding},
        remove_columns=data.column_names,
        new_fingerprint=_fingerprint(data, task, encoding),
    )
    if len(encoded) == 0:
        raise JobError("spec.data: no row is left after encoding; the texts are empty")
    return encoded


def block_size(spec: Spec, processor: Any, model_config: Any) -> int:
    """Tokens in a block of running text: processor.call.max_length, else what tokenizer and model hold."""
    limits = [
        getattr(processor, "model_max_length", _HUGE),
        getattr(model_config, "max_position_embeddings", None) or _HUGE,
        _DEFAULT_BLOCK,
    ]
    return int(spec.processor.call.get("max_length") or min(limits))


def tokens_per_sample(data: Dataset) -> float | None:
    """Mean number of tokens in a row of encoded data; None where rows have no tokens."""
    if "input_ids" not in data.column_names:
        return None
    return float(pyarrow.compute.mean(pyarrow.compute.list_value_length(data.data.column("input_ids"))).as_py() or 0)


def check_labels(data: Dataset, task: Task, labels: Labels) -> None:
    """Raises JobError when rows have a label that is not among the labels."""
    if not labels.names or (labels.ids and _class_names(data.features[task.info.label_column]) == labels.names):
        return
    for index, row in enumerate(data[task.info.label_column]):
        for value in row if isinstance(row, list) else [row]:
            if str(value) not in labels.names:
                raise JobError(
                    f"spec.data.evaluation: row {index + 1} has the label {value!r}, unknown to the model "
                    f"({', '.join(labels.names[:10])})"
                )


def _select(
    spec: Spec, task: Task, source: Source | Evaluation, where: str, columns: dict[str, str], split: str
) -> Dataset:
    data = _read(spec, source, where, split)
    if len(data) == 0:
        raise JobError(f"spec.{where}: {source.source} has no rows")
    data = _renamed(data, task, {**columns, **source.columns}, where, str(source.source))
    _check_rows(data, where)
    if source.max_samples:
        data = data.select(range(min(source.max_samples, len(data))))
    return data


def _read(spec: Spec, source: Source | Evaluation, where: str, split: str) -> Dataset:
    assert source.source is not None
    origin = local_folder(source.source, spec.storage)
    path = Path(origin)
    kind = source.format or _READERS.get(path.suffix.lstrip(".").lower())
    try:
        if path.is_dir() and source.format in (None, "datasets") and _is_saved(path):
            return _split(datasets.load_from_disk(origin), source, split, where)
        if path.is_dir() and kind is None:
            return _split(datasets.load_dataset(origin), source, split, where)
        if kind in _READERS:
            return _read_files(origin, str(kind), source, where)
        if path.exists():
            raise JobError(f"spec.{where}: {source.source} has no known ending; add format: json, csv or parquet")
        if kind is None and (origin.startswith((".", "/", "~")) or is_remote(source.source)):
            raise JobError(f"spec.{where}: {source.source}: no such file or folder")
        loaded = datasets.load_dataset(origin, source.name, revision=source.revision)
        return _split(loaded, source, split, where)
    except JobError:
        raise
    except (
        OSError,
        ValueError,
        datasets.exceptions.DatasetsError,
        datasets.exceptions.DatasetGenerationError,
    ) as error:
        cause = error.__cause__ or error
        raise JobError(f"spec.{where}: {source.source} cannot be read: {first_line(cause)}") from error


def _read_files(origin: str, kind: str, source: Source | Evaluation, where: str) -> Dataset:
    files = (
        sorted(str(file) for file in Path().glob(origin))
        if "*" in origin and not Path(origin).is_absolute()
        else [origin]
    )
    missing = [file for file in files if "*" not in file and not Path(file).exists()]
    if missing or not files:
        raise JobError(f"spec.{where}: {source.source}: no such file")
    if all(Path(file).stat().st_size == 0 for file in files if "*" not in file):
        raise JobError(f"spec.{where}: {source.source} has no rows: the file is empty")
    data = datasets.load_dataset(_READERS[kind], data_files=files, split="train")
    return _with_images(data, Path(origin).parent)


def _with_images(data: Dataset, folder: Path) -> Dataset:
    """Columns of image paths, relative to the file that names them, become images."""
    for name, feature in data.features.items():
        if getattr(feature, "dtype", "") == "string" and len(data) and _is_image(str(data[0][name])):
            absolute = [str(folder / path) for path in data[name]]
            data = data.remove_columns(name).add_column(name, absolute).cast_column(name, datasets.Image())
    return data


def _is_image(text: str) -> bool:
    return text.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")) and "\n" not in text


def _is_saved(path: Path) -> bool:
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()


def _split(loaded: Any, source: Source | Evaluation, wanted: str, where: str) -> Dataset:
    if isinstance(loaded, Dataset):
        return loaded
    assert isinstance(loaded, DatasetDict)
    names = [source.split] if source.split else [wanted, *(["test"] if wanted == "validation" else [])]
    found = next((name for name in names if name in loaded), None)
    if found is None:
        raise JobError(f"spec.{where}: no split {' or '.join(names)}; there are {', '.join(loaded)}. Set {where}.split")
    return loaded[found]


def _renamed(data: Dataset, task: Task, columns: dict[str, str], where: str, source: str) -> Dataset:
    """The columns that play a part, under the parts' names; the others are left out."""
    known = [part.name for part in task.info.columns]
    for part, column in columns.items():
        if part not in known:
            raise JobError(
                f"spec.{where}.columns.{part}: {task.info.name} has no such part; its parts: {', '.join(known)}"
            )
        if column not in data.column_names:
            raise JobError(
                f"spec.{where}.columns.{part}: {source} has no column {column}; it has {', '.join(data.column_names)}"
            )
    chosen: dict[str, str] = {}
    for part in task.info.columns:
        names = [columns[part.name]] if part.name in columns else [part.name, *part.aliases]
        found = next((name for name in names if name in data.column_names and name not in chosen.values()), None)
        if found is None and not part.optional:
            raise JobError(
                f"spec.{where}: {source} has no column {part.name}; it has {', '.join(data.column_names)}. "
                f"Say which it is: columns: {{{part.name}: <column>}}"
            )
        if found is not None:
            chosen[part.name] = found
    kept = data.select_columns(list(chosen.values()))
    return kept.rename_columns({column: part for part, column in chosen.items() if column != part})


def _check_rows(data: Dataset, where: str) -> None:
    """Raises JobError for a part of the wrong kind, an empty cell, or another number of tags than tokens."""
    for name, feature in data.features.items():
        column = data.data.column(name)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise JobError(f"spec.{where}: row {row + 1} has no {name}; every row needs one")
        if name in ("text", "text_pair") and getattr(feature, "dtype", "") not in ("string", "large_string"):
            raise JobError(f"spec.{where}: {name} must be text, and the column holds {_kind(feature)}")
        if name in ("tokens", "tags") and not hasattr(feature, "feature"):
            raise JobError(f"spec.{where}: {name} must be a list in each row, and the column holds {_kind(feature)}")
    if {"tokens", "tags"} <= set(data.column_names):
        lengths = [pyarrow.compute.list_value_length(data.data.column(name)).to_pylist() for name in ("tokens", "tags")]
        for row, (tokens, tags) in enumerate(zip(*lengths, strict=True)):
            if tokens != tags:
                raise JobError(
                    f"spec.{where}: row {row + 1} has {tokens} tokens and {tags} tags; each token needs one tag"
                )
        if any(tag is None for tags in data["tags"] for tag in tags):
            raise JobError(f"spec.{where}: a tag is null; write O for a token that is no entity")


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def _labels(data: Dataset, task: Task, config: dict[str, Any]) -> Labels:
    if task.info.label_kind == "none":
        return Labels()
    part = task.info.label_column
    feature, column = data.features[part], data[part]
    nested = task.info.label_kind == "tags" or isinstance(column[0], list)
    names = _class_names(feature)
    found = names or _sorted({str(value) for row in column for value in (row if nested else [row])})
    if task.info.label_kind == "tags":
        return Labels(found, ids=bool(names))
    problem_type = config.get("problem_type") or _problem_type(column, nested)
    if problem_type == "regression":
        return Labels((), problem_type)
    if len(found) < 2:
        raise JobError(f"spec.data.train: {part} has a single value, {found[0]!r}; a classifier needs two or more")
    return Labels(found, problem_type, ids=bool(names))


def _problem_type(column: Any, nested: bool) -> str:
    if nested:
        return "multi_label_classification"
    return "regression" if isinstance(column[0], float) else "single_label_classification"


def _class_names(feature: Any) -> tuple[str, ...]:
    """Names of a ClassLabel column, whose rows hold their ids; empty for other columns."""
    inner = getattr(feature, "feature", feature)
    return tuple(getattr(inner, "names", None) or ())


def _sorted(values: set[str]) -> tuple[str, ...]:
    if all(re.fullmatch(r"-?[0-9]+", value) for value in values):
        return tuple(sorted(values, key=int))
    return tuple(sorted(values))


def _fingerprint(data: Dataset, task: Task, encoding: Encoding) -> str:
    """The cache key of encoded data: the rows, the processor itself (not its name), the call and the labels."""
    backend = getattr(encoding.processor, "backend_tokenizer", None)
    processor = backend.to_str() if backend is not None else repr(encoding.processor)
    parts = [
        data._fingerprint,
        task.info.name,
        processor,
        json.dumps(encoding.call, sort_keys=True),
        repr(encoding.labels),
    ]
    return hashlib.sha256("\0".join([*parts, str(encoding.block), "1"]).encode()).hexdigest()[:32]
