"""A source as a data set: files, a folder, a hub name, or a URI of these."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict

from trainyard.errors import JobError
from trainyard.plan import columns, files
from trainyard.plan.files import TextFile
from trainyard.plan.inputs import is_local
from trainyard.spec.model import Evaluation, Source, Spec
from trainyard.spec.tasks import TaskInfo
from trainyard.train.data import images, tables
from trainyard.train.processor import first_line
from trainyard.train.sources import local_files

_HEADER_ONLY = "the file holds a header only"
_EMPTY = "the file is empty"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A source with what is needed to read it."""

    source: Source | Evaluation
    where: str
    """Its field, without spec (`data.train`)."""
    task: TaskInfo
    columns: dict[str, str]
    """Columns as the manifest names them."""
    splits: tuple[str, ...]
    """Names of the split to take, the first that is there."""

    @property
    def name(self) -> str:
        """The source as it was written."""
        return str(self.source.source)

    @property
    def field(self) -> str:
        """The field, for a message."""
        return f"spec.{self.where}"

    def chosen(self, names: list[str]) -> dict[str, str]:
        """The name in the data of each column of the task. Raises JobError."""
        return columns.chosen(names, self.task, self.columns, self.where, self.name)


def read(spec: Spec, task: TaskInfo, which: str) -> Dataset:
    """The rows of spec.data.train or spec.data.evaluation, with the task's columns under the task's names.

    At most maxSamples of them. Raises JobError with the field, the file and the line, and StorageError.
    """
    request = _request(spec, task, which)
    try:
        rows = _read(request, spec)
    except JobError:
        raise
    except (
        OSError,
        ValueError,
        datasets.exceptions.DatasetsError,
        datasets.exceptions.DatasetGenerationError,
    ) as error:
        cause = error.__cause__ or error
        if isinstance(cause, JobError):
            raise cause from error
        raise JobError(f"{request.field}: {request.name} cannot be read: {first_line(cause)}") from error
    if len(rows) == 0:
        raise JobError(f"{request.field}: {request.name} has no rows")
    limit = request.source.max_samples
    return rows.select(range(min(limit, len(rows)))) if limit else rows


def _request(spec: Spec, task: TaskInfo, which: str) -> Request:
    source: Source | Evaluation = spec.data.train
    named = source.columns
    usual: tuple[str, ...] = ("train",)
    if which == "evaluation":
        source = spec.data.evaluation
        named = {**named, **source.columns}
        usual = ("validation", "test")
    splits = (source.split,) if source.split else usual
    return Request(source=source, where=f"data.{which}", task=task, columns=named, splits=splits)


def _read(request: Request, spec: Spec) -> Dataset:
    if request.source.format == "hub":
        return _from_hub(request)
    paths = local_files(request.name, spec.storage)
    if not paths:
        return _from_hub(request)
    if len(paths) == 1 and paths[0].is_dir():
        return _from_folder(request, paths[0])
    return _from_files(request, paths)


def _from_files(request: Request, paths: list[Path]) -> Dataset:
    kinds = {files.format_of(path, request.source.format) for path in paths}
    if len(kinds) > 1:
        raise JobError(f"{request.field}: {request.name} names files of several formats; name those of one")
    kind = kinds.pop()
    if kind == "parquet":
        loaded = datasets.load_dataset("parquet", data_files=[str(path) for path in paths], split="train")
        return _renamed(request, loaded, paths[0].parent)
    texts = [files.text_file(path, request.source, request.where) for path in paths]
    if None in texts:
        raise JobError(f"{request.field}: {request.name} has no known ending; add format: json, csv or parquet")
    return _from_texts(request, [text for text in texts if text is not None])


def _from_texts(request: Request, texts: list[TextFile]) -> Dataset:
    limit = request.source.max_samples
    survey = tables.survey(texts, limit)
    if survey.rows == 0:
        raise JobError(f"{request.field}: {request.name} has no rows: {_HEADER_ONLY if survey.names else _EMPTY}")
    chosen = request.chosen(survey.names)
    table = tables.Table(files=texts, limit=limit, columns=chosen, task=request.task, where=request.where)
    return images.loaded(table.read(survey), request.task, texts[0].path.parent)


def _from_folder(request: Request, folder: Path) -> Dataset:
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        return _renamed(request, _split(request, datasets.load_from_disk(str(folder))), folder)
    builder = datasets.load_dataset_builder(str(folder))
    by_split = builder.config.data_files or {}
    if not by_split:
        return _renamed(request, _split(request, datasets.load_dataset(str(folder))), folder)
    paths = [Path(name) for name in by_split[_split_name(request, list(by_split))]]
    texts = [files.text_file(path, request.source, request.where) for path in paths]
    if None in texts:  # images, Parquet, …
        return _renamed(request, _split(request, datasets.load_dataset(str(folder))), folder)
    return _from_texts(request, [text for text in texts if text is not None])


def _from_hub(request: Request) -> Dataset:
    name = request.name
    looks_like_files = is_local(name) or files.has_pattern(name) or files.format_of(Path(name), None) is not None
    if request.source.format != "hub" and looks_like_files:
        raise JobError(f"{request.field}: {name}: no such file or folder")
    loaded = datasets.load_dataset(name, request.source.name, revision=request.source.revision)
    return _renamed(request, _split(request, loaded), Path())


def _renamed(request: Request, rows: Dataset, folder: Path) -> Dataset:
    """The columns of the task under their names in the task; the others are left out."""
    if len(rows) == 0:
        raise JobError(f"{request.field}: {request.name} has no rows")
    chosen = request.chosen(rows.column_names)
    selected = rows.select_columns(list(chosen.values()))
    renamed = selected.rename_columns({name: part for part, name in chosen.items() if name != part})
    return images.loaded(renamed, request.task, folder)


def _split(request: Request, loaded: Any) -> Dataset:
    if isinstance(loaded, Dataset):
        return loaded
    assert isinstance(loaded, DatasetDict)
    return loaded[_split_name(request, list(loaded))]


def _split_name(request: Request, names: list[Any]) -> Any:
    by_text = {str(name): name for name in names}
    split = next((by_text[name] for name in request.splits if name in by_text), None)
    if split is None:
        raise JobError(
            f"{request.field}: no split {' or '.join(request.splits)}; there are {', '.join(by_text)}. "
            f"Set {request.where}.split"
        )
    return split
