"""The catalogue of TrainingArguments: name, type, default and words of each, without importing transformers.

`training_arguments.json` is generated from the pinned transformers by `make generate`
(trainyard.train.catalogue); a test fails when it is stale.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One field of transformers.TrainingArguments."""

    name: str
    types: tuple[str, ...]
    """What a manifest may hold: bool, int, float, str, list, dict, null."""
    default: Any
    choices: tuple[str, ...]
    """The values of an enumeration; empty when any value of the type will do."""
    doc: str


@cache
def transformers_version() -> str:
    """The version of transformers that the catalogue was generated from."""
    return str(_document()["transformers"])


@cache
def arguments() -> dict[str, Argument]:
    """Every TrainingArguments field by its name, in transformers' order."""
    rows = _document()["arguments"]
    return {
        row["name"]: Argument(
            name=row["name"],
            types=tuple(row["types"]),
            default=row["default"],
            choices=tuple(row.get("choices", ())),
            doc=row["doc"],
        )
        for row in rows
    }


@cache
def _document() -> dict[str, Any]:
    text = files(__package__).joinpath("training_arguments.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document
