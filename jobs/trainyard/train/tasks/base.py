"""What a task is: a row of the table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Columns = dict[str, list[Any]]
"""A batch of rows, column by column, under the parts' names."""

LabelKind = Literal["none", "class", "tags"]


@dataclass(frozen=True)
class Labels:
    """The labels of a task, as they go into the model's config."""

    names: tuple[str, ...] = ()
    problem_type: str | None = None
    """transformers' problem_type: single_label_classification, multi_label_classification or regression."""

    ids: bool = False
    """The data holds ids of the names (a ClassLabel column), not the names."""

    def index(self, value: Any) -> int:
        """The id of a label as the data writes it."""
        return int(value) if self.ids else self.names.index(str(value))


@dataclass(frozen=True)
class Encoding:
    """What an encoder works with: the processor, the arguments of its call, and the labels."""

    processor: Any
    call: dict[str, Any]
    labels: Labels
    block: int = 0
    """Tokens in a block of running text; 0 where rows stay rows."""


@dataclass(frozen=True)
class ColumnPart:
    """A part that a column plays."""

    name: str
    required: bool = True
    aliases: tuple[str, ...] = ()
    """Column names that are taken for this part when the manifest names none."""


@dataclass(frozen=True)
class Task:
    """A row of the table of tasks."""

    name: str
    auto_class: str
    processor_class: str
    parts: tuple[ColumnPart, ...]
    encode: Callable[[Columns, Encoding], Columns]
    collator: Callable[[Any, Any], Callable[[Sequence[Any]], Any]]
    """From (processor, model) to a collator."""
    metrics: Callable[[Labels], Callable[[Any], dict[str, float]] | None]
    """From the labels to Trainer's compute_metrics; None when the loss says it all."""
    label_kind: LabelKind = "none"
    label_part: str = "label"
    lazy: bool = False
    """Encode when a row is read, not before training: for images and sound, which would fill the disk."""
    predicts_ids: bool = False
    """Keep only the arg max of the logits for the metrics: a vocabulary of logits would fill the memory."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
