"""The loss of an optimizer step, however its samples are split over batches and ranks.

Trainer hands the number of labels of a whole step, `num_items_in_batch`, to each model whose forward takes any keyword,
and expects a loss that is a sum divided by this number. Many models of transformers take the keyword and ignore it:
most classifiers built on a decoder. Trainer then adds up means, so that loss and gradients are too large by
the number of accumulated batches and of ranks.

A signature does not tell which models these are, nor does their source: what a model does with the number decides. The
first batch is tried with the number and with its double. A loss that stays the same ignores it. When such a loss
is the mean over its labels, which a split of the batch shows, each batch gets its share of the step's labels as weight,
and the step's loss is the mean over all its labels. Otherwise a step's loss is the mean over its batches.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import torch
from transformers import Trainer

_IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""
_SAME = 5e-3
"""Relative difference up to which two losses are the same: of one row alone and beside another, in bfloat16."""


class Normalisation(IntEnum):
    """What a model's loss is, in the order in which ranks overrule each other."""

    UNKNOWN = 0
    """Not known yet: the batch has no labels, or its loss is 0."""
    PERHAPS_MEAN = 1
    """Ignores num_items_in_batch; the batch has too few labels to show more. Taken for a mean until one does."""
    MEAN = 2
    """Ignores num_items_in_batch, and is the mean over the batch's labels."""
    OTHER = 3
    """Ignores num_items_in_batch, and is no mean over the labels."""
    SUM = 4
    """Divides by num_items_in_batch."""


_OPEN = (Normalisation.UNKNOWN, Normalisation.PERHAPS_MEAN)
_MEANS = (Normalisation.PERHAPS_MEAN, Normalisation.MEAN)


def decide(trainer: Any, model: torch.nn.Module, inputs: Any) -> None:
    """Find out what the model does with num_items_in_batch, if it matters and is not known yet.

    A collective: each rank makes four forward passes without gradients, over two rows where a batch has rows.
    """
    if not _matters(trainer) or not isinstance(inputs, Mapping) or not isinstance(inputs.get("labels"), torch.Tensor):
        return
    if normalisation(trainer) in _OPEN:
        _set(trainer, _agreed(trainer, _tried(trainer, model, inputs)))


def normalisation(trainer: Any) -> Normalisation:
    """What is known of the loss of a Trainer's model."""
    known: Normalisation = getattr(trainer, "_trainyard_loss", Normalisation.UNKNOWN)
    return known


def weighted(trainer: Any, inputs: dict[str, Any], num_items_in_batch: Any, loss: torch.Tensor) -> torch.Tensor:
    """A batch's loss as its share of the step's loss: a scalar, as Trainer.compute_loss returns it."""
    if normalisation(trainer) not in _MEANS or num_items_in_batch is None:
        return loss
    return loss * (_count(trainer, inputs) / num_items_in_batch)


def compute_loss(trainer: Any, original: Callable[..., Any], model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Trainer.compute_loss with the weight that weighted() gives a batch, once it is known what the model's loss is.

    A Trainer of a user's own that computes another loss does not come here: its loss is its own affair.
    """
    decide(trainer, model, inputs)
    names = ("return_outputs", "num_items_in_batch")
    kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
    result = original(trainer, model, inputs, **kwargs)
    items = kwargs.get("num_items_in_batch")
    if isinstance(result, tuple):
        return weighted(trainer, inputs, items, result[0]), *result[1:]
    return weighted(trainer, inputs, items, result)


def _matters(trainer: Any) -> bool:
    if not getattr(trainer, "_trainyard_asks_loss", trainer.model_accepts_loss_kwargs):
        return False
    if trainer.label_smoother is not None or trainer.compute_loss_func is not None:
        return False  # these get the logits, and divide by the number themselves
    return trainer.args.world_size > 1 or trainer.args.gradient_accumulation_steps > 1


def _set(trainer: Any, found: Normalisation) -> None:
    trainer._trainyard_asks_loss = True
    trainer._trainyard_loss = found
    # Of a loss that is not known, the mean over the batches is wrong by the least.
    trainer.model_accepts_loss_kwargs = found in (*_MEANS, Normalisation.SUM)


def _agreed(trainer: Trainer, found: Normalisation) -> Normalisation:
    """The finding of the rank whose batch shows most: all ranks must scale their loss alike."""
    votes = trainer.accelerator.gather(torch.tensor([int(found)], device=trainer.args.device))
    return Normalisation(int(votes.max()))


def _tried(trainer: Any, model: torch.nn.Module, inputs: dict[str, Any]) -> Normalisation:
    inputs = _few_rows(trainer._prepare_inputs(inputs))
    parts = _parts(inputs)
    # With ZeRO-3 and FSDP2 a forward is a collective: each rank makes the same number of them.
    tries = [(inputs, 1), (inputs, 2), *((part, 1) for part in parts or (inputs, inputs))]
    training = model.training
    devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), trainer.compute_loss_context_manager():
            losses = [_loss(model, batch, times * _count(trainer, batch)) for batch, times in tries]
    finally:
        model.train(training)
    once, twice = losses[:2]
    if once is None or twice is None or not once:
        return Normalisation.UNKNOWN
    if abs(once - twice) > _SAME * abs(once):
        return Normalisation.SUM
    if parts is None:
        return Normalisation.OTHER
    first, second = (int(_count(trainer, part)) for part in parts)
    if not first or not second:
        return Normalisation.PERHAPS_MEAN
    if losses[2] is None or losses[3] is None:
        return Normalisation.OTHER
    mean = (losses[2] * first + losses[3] * second) / (first + second)
    return Normalisation.MEAN if abs(mean - once) <= _SAME * abs(once) else Normalisation.OTHER


def _loss(model: torch.nn.Module, inputs: dict[str, Any], items: torch.Tensor) -> float | None:
    """The loss of a batch; None when there is none, or it is no number."""
    outputs = model(**inputs, num_items_in_batch=items)
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs[0]
    return float(loss) if isinstance(loss, torch.Tensor) and loss.numel() == 1 and bool(loss.isfinite()) else None


def _count(trainer: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The labels of a batch, as Trainer._get_num_items_in_batch counts them; a scalar on the labels' device."""
    if "shift_labels" in inputs:
        labels = inputs["shift_labels"]
    elif trainer._loss_shifts_labels:
        labels = inputs["labels"][..., 1:]
    else:
        labels = inputs["labels"]
    return (labels != _IGNORED).sum()


def _few_rows(inputs: dict[str, Any]) -> dict[str, Any]:
    """The first two rows of a batch; the whole batch where a tensor's first dimension is not its rows."""
    return _rows(inputs, slice(0, 2)) if _has_rows(inputs) else inputs


def _has_rows(inputs: dict[str, Any]) -> bool:
    rows = len(inputs["labels"])
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    return all(tensor.ndim and len(tensor) == rows for tensor in tensors)


def _rows(inputs: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {name: value[rows] if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def _parts(inputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The batch in two parts with labels of their own; None when it cannot be divided."""
    labels = inputs["labels"]
    if _has_rows(inputs) and len(labels) == 2:
        return _rows(inputs, slice(0, 1)), _rows(inputs, slice(1, 2))
    if not (labels == _IGNORED).any():
        return None  # the loss may know no label that is left out
    places = (labels != _IGNORED).flatten().nonzero().flatten()
    first = torch.zeros_like(labels, dtype=torch.bool)
    first.view(-1)[places[::2]] = True
    in_first = {**inputs, "labels": labels.masked_fill(~first, _IGNORED)}
    return in_first, {**inputs, "labels": labels.masked_fill(first, _IGNORED)}
