"""What the code of a task is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.plan.labels import Labels
from trainyard.spec.tasks import TaskInfo

Columns = dict[str, list[Any]]
"""A batch of rows, column by column, under the parts' names."""


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
    encode_version: int = 1
    """Part of the cache key of encoded data: count it up when `encode` gives other columns or values."""
    in_blocks: bool = False
    """Whether rows are joined to running text and cut into blocks of one length."""
    lazy: bool = False
    """Encode when a row is read, not before training: for images and sound, which would fill the disk."""
    predicts_ids: bool = False
    """Keep only the arg max of the logits for the metrics: a vocabulary of logits would fill the memory."""
