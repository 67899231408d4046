"""The words for every field: one tree of (name, type, default, help) that explain, the docs and the CRD share."""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainyard.spec import answers
from trainyard.spec.catalogue import arguments
from trainyard.spec.model import TrainerJob


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field of the manifest."""

    path: tuple[str, ...]
    type: str
    default: str | None
    help: str
    required: bool
    leaf: bool


def entries() -> Iterator[Entry]:
    """Every field of the manifest, parents before children, in the order of the models."""
    yield from _of(TrainerJob, ())


def explain(dotted: str) -> tuple[Entry, list[Entry]] | None:
    """The entry at a path and its children; a path counts from the top or from spec. None when there is none.

    An argument of transformers 4 has an entry that says what takes its place.
    """
    known = {entry.path: entry for entry in (*entries(), *_argument_entries())}
    wanted = tuple(dotted.split(".")) if dotted else ()
    path = next((path for path in (wanted, ("spec", *wanted)) if path in known), None)
    if path is None:
        removed = _removed(dotted)
        return None if removed is None else (removed, [])
    children = [entry for entry in known.values() if entry.path[:-1] == path]
    return known[path], children


def _of(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Entry]:
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        child = _model_of(field.annotation)
        yield Entry(
            path=here,
            type=_type(field),
            default=_default(field),
            help=" ".join((field.description or "").split()),
            required=field.is_required(),
            leaf=child is None,
        )
        if child is not None:
            yield from _of(child, here)


def _argument_entries() -> Iterator[Entry]:
    for argument in arguments().values():
        kinds = " or ".join(kind for kind in argument.types if kind != "null")
        shown = f"one of {', '.join(argument.choices)}" if argument.choices else kinds
        default = None if argument.default is None else str(argument.default)
        answered = answers.words(argument.name)
        help_ = f"{answered} {argument.doc}".strip() if answered else argument.doc
        yield _argument_entry(argument.name, shown, default, help_)


def _removed(dotted: str) -> Entry | None:
    """The entry of an argument of transformers 4, which is no field any more."""
    *parents, name = dotted.removeprefix("spec.").split(".")
    if parents not in ([], ["trainingArguments"]) or name not in answers.REMOVED:
        return None
    return _argument_entry(name, "removed", None, answers.words(name) or "")


def _argument_entry(name: str, kind: str, default: str | None, words: str) -> Entry:
    path = ("spec", "trainingArguments", name)
    return Entry(path=path, type=kind, default=default, help=words, required=False, leaf=True)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _default(field: FieldInfo) -> str | None:
    value = field.default
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel) or value == {}:
        return None
    return str(value).lower() if isinstance(value, bool) else str(getattr(value, "value", value))


def _type(field: FieldInfo) -> str:
    annotation = field.annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return _type_name(annotation)


def _type_name(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(str(value) for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is dict or annotation is dict:
        return "mapping"
    if typing.get_origin(annotation) is list:
        return "list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    if hasattr(annotation, "__members__"):
        return " | ".join(member.value for member in annotation)
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return names.get(annotation, str(annotation))
