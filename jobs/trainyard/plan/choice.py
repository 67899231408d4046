"""A decision that was not the user's: the value, and why."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value with the reason for it, both shown by `trainyard plan`."""

    value: T
    reason: str
    field: str | None = None
    """The field of the manifest that the value is made from. The resolved job keeps that field, not the value."""
