"""fill-mask and text-generation: the text is its own label."""

import zlib
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling

from trainyard.plan.labels import IGNORED, Labels
from trainyard.spec.tasks import TASKS as TASK_INFOS
from trainyard.train.tasks.base import Columns, Encoding, Task


def encode_rows(rows: Columns, encoding: Encoding) -> Columns:
    """Token ids of each text; the collator masks some of them."""
    return dict(encoding.processor(rows["text"], return_special_tokens_mask=True, **encoding.call))


def encode_blocks(rows: Columns, encoding: Encoding) -> Columns:
    """Token ids of running text, cut into blocks of equal length.

    Texts are joined with the end-of-text token and the rest that fills no block is dropped, as in
    transformers' run_clm example; a data set shorter than one block becomes one shorter block.
    """
    processor, block = encoding.processor, encoding.block
    call = {key: value for key, value in encoding.call.items() if key not in ("max_length", "truncation", "padding")}
    end = [processor.eos_token_id] if processor.eos_token_id is not None else []
    ids = list(chain.from_iterable(text + end for text in processor(rows["text"], **call)["input_ids"]))
    usable = len(ids) // block * block or len(ids)
    blocks = [ids[start : min(start + block, usable)] for start in range(0, usable, block)]
    return {"input_ids": blocks, "attention_mask": [[1] * len(each) for each in blocks]}


@dataclass
class ContentSeededMasking(DataCollatorForLanguageModeling):
    """Masks tokens at random, with a seed from the batch itself.

    A resumed run must mask what the unbroken one would have masked. The global RNG cannot give that: batches
    are fetched one ahead of the step that is saved.
    """

    def __call__(self, features: Any, return_tensors: str | None = None) -> Any:
        """A batch of masked input ids, and labels for the masked ones (others -100)."""
        seed = zlib.crc32(repr([feature["input_ids"] for feature in features]).encode())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            batch = super().__call__(features, return_tensors)
        if not (batch["labels"] != IGNORED).any():
            # Few short texts may get no mask at all, and the mean loss over nothing is nan: mask one token.
            text = batch["attention_mask"].bool() & ~self._special(batch["input_ids"])
            row, column = (int(index) for index in text.nonzero()[0]) if text.any() else (0, 0)
            batch["labels"][row, column] = batch["input_ids"][row, column]
            batch["input_ids"][row, column] = self.tokenizer.mask_token_id
        return batch

    def _special(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))


@dataclass
class CausalCollator(DataCollatorForLanguageModeling):
    """Pads blocks, and takes their tokens as labels: all but the padding, as transformers' run_clm does.

    transformers' collator leaves out each pad token. Where the end-of-text token pads, as GPT-2's does, the model would
    never learn to stop.
    """

    def __call__(self, features: Any, return_tensors: str | None = None) -> Any:
        """A batch with `labels` of the shape of `input_ids`: the same ids, IGNORED where the attention mask is 0."""
        batch = super().__call__(features, return_tensors)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        return batch


def ids_only(logits: Any, labels: Any) -> Any:
    """The arg max of logits of shape (batch, length, vocabulary): ids of shape (batch, length)."""
    logits = logits[0] if isinstance(logits, tuple) else logits
    return logits.argmax(dim=-1)


def _next_token_metrics(labels: Labels) -> Any:
    return _accuracy(shift=1)


def _mask_metrics(labels: Labels) -> Any:
    return _accuracy(shift=0)


def _accuracy(shift: int) -> Any:
    def compute(prediction: Any) -> dict[str, float]:
        ids, truth = prediction.predictions, prediction.label_ids
        if shift:
            ids, truth = ids[:, :-shift], truth[:, shift:]
        counted = truth != IGNORED
        return {"accuracy": float(np.mean(ids[counted] == truth[counted])) if counted.any() else 0.0}

    return compute


TASKS = (
    Task(
        info=TASK_INFOS["fill-mask"],
        encode=encode_rows,
        collator=lambda processor, model: ContentSeededMasking(processor, mlm=True, mlm_probability=0.15),
        metrics=_mask_metrics,
        predicts_ids=True,
    ),
    Task(
        info=TASK_INFOS["text-generation"],
        encode=encode_blocks,
        collator=lambda processor, model: CausalCollator(processor, mlm=False),
        in_blocks=True,
        metrics=_next_token_metrics,
        predicts_ids=True,
    ),
)
