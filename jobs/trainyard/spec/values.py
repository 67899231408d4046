"""The kinds of values in a manifest: numbers, texts, amounts, URIs, names, as pydantic checks them."""

import codecs
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, StringConstraints, WithJsonSchema

from trainyard.spec import patterns
from trainyard.spec.tasks import NAMES
from trainyard.spec.urls import check_server, check_storage

MAX_NAME = 50
"""A pod is called <job>-<index> and a host name has at most 63 characters."""


def _integral(value: Any) -> Any:
    # JSON has one kind of number: kubectl sends 1e3 as 1000, and the API server takes it as an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _real(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _codec(value: str) -> str:
    try:
        codecs.lookup(value)
    except LookupError:
        raise ValueError(f"there is no encoding {value}; write one such as utf-8, utf-16, cp949 or cp1252") from None
    return value


def _quantity(value: Any) -> Any:
    # Kubernetes takes 4 and 0.5 for "4" and "0.5" wherever an amount stands.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(int(value)) if float(value).is_integer() else str(value)


def _amount(pattern: str) -> WithJsonSchema:
    """How schemas declare an amount: a number, or a text of the pattern."""
    kinds = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": pattern}]
    return WithJsonSchema({"anyOf": kinds, "pattern": pattern, "x-kubernetes-int-or-string": True})


Int = Annotated[int, BeforeValidator(_integral)]
Float = Annotated[float, BeforeValidator(_real)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Name = Annotated[str, StringConstraints(pattern=patterns.NAME, max_length=MAX_NAME)]
Uri = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
ServerUrl = Annotated[Uri, AfterValidator(check_server)]
StorageUri = Annotated[Uri, AfterValidator(check_storage)]
Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    StringConstraints(pattern=patterns.QUANTITY, max_length=32),
    _amount(patterns.QUANTITY),
]
Cpus = Annotated[
    str, BeforeValidator(_quantity), StringConstraints(pattern=patterns.CPU, max_length=32), _amount(patterns.CPU)
]
ClassName = Annotated[str, StringConstraints(pattern=patterns.CLASS, max_length=128)]
Encoding = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_codec)]
Foreign = dict[str, Any]
"""A block in another project's words, passed on verbatim and checked by our own code, not by the CRD."""

if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[NAMES]
