"""Generates spec/training_arguments.json from the installed transformers: `python -m trainyard.train.catalogue`."""

import dataclasses
import enum
import json
import sys
import types
import typing
from typing import Any

import transformers
from transformers import TrainingArguments

_PLAIN = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}


def _types(annotation: Any) -> tuple[set[str], list[str]]:
    """JSON types that an annotation admits, and the values of its enumerations."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        pairs = [_types(part) for part in typing.get_args(annotation)]
        return set().union(*(kinds for kinds, _ in pairs)), [value for _, values in pairs for value in values]
    if origin is typing.Literal:
        return {_PLAIN[type(value)] for value in typing.get_args(annotation)}, []
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"str"}, [member.value for member in annotation]
    if annotation in _PLAIN:
        return {_PLAIN[annotation]}, []
    base = origin or annotation
    if base is list:
        return {"list"}, []
    return {"dict"}, []


def _default(field: dataclasses.Field[Any]) -> Any:
    value = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    return value.value if isinstance(value, enum.Enum) else value


def catalogue() -> dict[str, Any]:
    """The document that spec/catalogue.py reads: transformers' version and a row for each argument."""
    rows = []
    hints = typing.get_type_hints(TrainingArguments)
    for field in dataclasses.fields(TrainingArguments):
        kinds, choices = _types(hints[field.name])
        choices = choices or list(field.metadata.get("choices", ()))
        doc = " ".join(str(field.metadata.get("help", "")).split())
        row = {"name": field.name, "types": sorted(kinds), "default": _default(field), "doc": doc}
        # An empty default (`debug: ""`) means that the enumeration is not the whole story.
        rows.append(row | ({"choices": choices} if choices and row["default"] != "" else {}))
    return {"transformers": transformers.__version__, "arguments": rows}


def text() -> str:
    """The file's text, as it is committed."""
    return json.dumps(catalogue(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
