"""What an evaluation has predicted, as the metrics take it."""

from collections.abc import Callable
from functools import reduce
from typing import Any

from transformers import EvalPrediction
from transformers.trainer_pt_utils import nested_concat

from trainyard.plan.labels import IGNORED

Compute = Callable[[EvalPrediction], dict[str, float]]
"""Trainer's compute_metrics."""


def over_batches(compute: Compute | None) -> Compute | None:
    """Metrics that also take the batches one by one, as eval_do_concat_batches: false hands them over.

    Batches of rows of other lengths are padded with IGNORED, as Trainer pads them when it concatenates.
    """
    if compute is None:
        return None

    def compute_over_all(prediction: EvalPrediction) -> dict[str, float]:
        whole = EvalPrediction(predictions=_joined(prediction.predictions), label_ids=_joined(prediction.label_ids))
        return compute(whole)

    return compute_over_all


def _joined(batches: Any) -> Any:
    if not isinstance(batches, list):
        return batches
    return reduce(lambda joined, batch: nested_concat(joined, batch, padding_index=IGNORED), batches)
