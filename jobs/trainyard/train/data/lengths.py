"""The longest encoded row against what the model can take, before the first step."""

import re
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from trainyard.errors import JobError
from trainyard.plan.choice import Choice
from trainyard.spec.model import Spec
from trainyard.train.choices import Choices
from trainyard.train.data.encoding import token_counts
from trainyard.train.tasks.base import Task

_POSITIONS = re.compile(r"(^|\.)(position_embeddings|embed_positions|wpe|position_embedding)$")
"""Modules of transformers that hold a vector for each position, by the end of their names."""


def check_lengths(
    spec: Spec, task: Task, model: PreTrainedModel, data: dict[str, Dataset | None], choices: Choices
) -> None:
    """Keep the length of the longest row as a choice. `data`: encoded rows by their field (`data.train`).

    Raises JobError with the row that is longer than the model, and what to write.
    """
    limit = positions(model)
    for where, rows in data.items():
        sizes = token_counts(rows) if rows is not None else None
        if sizes is None:
            continue
        longest = pc.max(sizes).as_py()
        if limit is not None and longest > limit:
            row = pc.index(sizes, longest).as_py() + 1
            raise JobError(f"spec.{where}: {_too_long(task, row, longest, limit)}")
        if where == "data.train":
            choices.add("longest row", _line(spec, task, longest, limit, model.config))


def positions(model: PreTrainedModel) -> int | None:
    """The most tokens that a row may have: one for each position that the model has a vector for.

    None for models that compute positions (RoPE, ALiBi, T5's buckets): they take rows of any length.
    RoBERTa and its kin count positions from behind the padding's, OPT from behind an offset.
    """
    limits = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and "vision" not in name:
            behind = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
            limits.append(module.num_embeddings - behind)
    return min(limits, default=None)


def _too_long(task: Task, row: int, longest: int, limit: int) -> str:
    if task.in_blocks:
        return (
            f"blocks have {longest} tokens, and the model has positions for {limit}. "
            f"Write processor.call: {{max_length: {limit}}}"
        )
    return (
        f"row {row} has {longest} tokens, and the model has positions for {limit}. "
        f"Write processor.call: {{max_length: {limit}, truncation: true}}, or shorten the row"
    )


def _line(spec: Spec, task: Task, longest: int, limit: int | None, config: Any) -> Choice[str]:
    trained = limit or getattr(config, "max_position_embeddings", None)
    takes = f"the model takes {trained}" if trained else "the model computes positions for any length"
    if limit is None and trained and longest > trained:
        takes = f"more than the {trained} that the model was made for; processor.call: {{max_length: {trained}}} cuts"
    call = spec.processor.call
    if task.in_blocks:
        return Choice(f"{longest} tokens", f"texts are joined and cut into blocks; {takes}")
    if call.get("truncation") and longest == call.get("max_length"):
        return Choice(f"{longest} tokens", f"cut by processor.call; {takes}")
    return Choice(f"{longest} tokens", takes)
