"""Rows as the model reads them: encoded once and cached on disk, or when a row is read."""

import hashlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from trainyard.errors import JobError
from trainyard.plan.labels import IGNORED
from trainyard.spec.model import Spec
from trainyard.train.tasks.base import Encoding, Task

_DEFAULT_BLOCK = 512
_NO_LIMIT = 1_000_000
"""A tokenizer that has no limit says 10**30."""


def encode(data: Dataset, task: Task, encoding: Encoding, where: str) -> Dataset:
    """The data set that Trainer reads: encoded and cached on disk, or for lazy tasks encoded when a row is read.

    Raises JobError with the row that gives the model nothing to learn from.
    """
    if task.lazy:
        return data.with_transform(lambda rows: task.encode(rows, encoding))
    encoded = data.map(
        task.encode,
        batched=True,
        fn_kwargs={"encoding": encoding},
        remove_columns=data.column_names,
        new_fingerprint=_fingerprint(data, task, encoding),
    )
    if len(encoded) == 0:
        raise JobError(f"spec.{where}: no row is left after encoding; the texts are empty")
    if len(encoded) == len(data):
        _check_rows(encoded, where)
    return encoded


def block_size(spec: Spec, task: Task, processor: Any, model_config: Any) -> int:
    """Tokens in a block of running text: processor.call.max_length, else what tokenizer and model hold.

    0 for tasks whose rows stay rows.
    """
    if not task.in_blocks:
        return 0
    limits = [
        getattr(processor, "model_max_length", _NO_LIMIT),
        getattr(model_config, "max_position_embeddings", None) or _NO_LIMIT,
        _DEFAULT_BLOCK,
    ]
    return int(spec.processor.call.get("max_length") or min(limits))


def tokens_per_sample(data: Dataset) -> float | None:
    """Mean number of tokens in a row of encoded data; None where rows have no tokens."""
    sizes = token_counts(data)
    return float(pc.mean(sizes).as_py() or 0) if sizes is not None else None


def token_counts(data: Dataset) -> pa.Array | None:
    """Tokens of each row of encoded data; None where rows have no tokens."""
    if "input_ids" not in data.column_names:
        return None
    return pc.list_value_length(data.data.column("input_ids"))


def _check_rows(encoded: Dataset, where: str) -> None:
    sizes = token_counts(encoded)
    if sizes is None:
        return
    empty = pc.index(sizes, 0).as_py()
    if empty >= 0:
        raise JobError(f"spec.{where}: row {empty + 1} is empty: the processor makes no tokens of it. Leave it out")
    labels = encoded.data.column("labels") if "labels" in encoded.column_names else None
    if labels is None or not pa.types.is_list(labels.type) or not pa.types.is_integer(labels.type.value_type):
        return
    for row, tags in enumerate(labels.to_pylist(), 1):
        if all(tag == IGNORED for tag in tags):
            raise JobError(f"spec.{where}: row {row} has no label on any of its tokens. Leave it out")


_BESIDE_BACKEND = ("model_max_length", "padding_side", "truncation_side", "special_tokens_map")
"""What decides how a fast tokenizer encodes, and is no part of its backend."""


def _fingerprint(data: Dataset, task: Task, encoding: Encoding) -> str:
    """The cache key of encoded data: the rows, the processor itself (not its name), the call and the labels."""
    backend = getattr(encoding.processor, "backend_tokenizer", None)
    if backend is not None:
        settings = {name: getattr(encoding.processor, name, None) for name in _BESIDE_BACKEND}
        processor = f"{backend.to_str()} {json.dumps(settings, sort_keys=True, default=str)}"
    else:
        processor = repr(encoding.processor)
    parts = [
        data._fingerprint,
        task.info.name,
        str(task.encode_version),
        processor,
        json.dumps(encoding.call, sort_keys=True),
        repr(encoding.labels),
        str(encoding.block),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
