"""What the code of a task is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.spec.tasks import TaskInfo

Columns = dict[str, list[Any]]
"""A batch of rows, column by column, under the parts' names."""


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


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a task encodes, collates and measures."""

    info: TaskInfo
    """Its row in the table that needs no torch."""
    encode: Callable[[Columns, Encoding], Columns]
    collator: Callable[[Any, Any], Callable[[Sequence[Any]], Any]]
    """From (processor, model) to a collator."""
    metrics: Callable[[Labels], Callable[[Any], dict[str, float]] | None]
    """From the labels to Trainer's compute_metrics; None when the loss says it all."""
    lazy: bool = False
    """Encode when a row is read, not before training: for images and sound, which would fill the disk."""
    predicts_ids: bool = False
    """Keep only the arg max of the logits for the metrics: a vocabulary of logits would fill the memory."""
