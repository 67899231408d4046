"""The dtype in which a job holds the weights that it trains."""

from trainyard.plan.choice import Choice
from trainyard.spec.model import Model

_LOST_BELOW = {"bfloat16": "1/256", "float16": "1/2048"}
"""Part of a weight below which an update is rounded away: half the distance to the next number."""

HALVES = tuple(_LOST_BELOW)
"""Dtypes of two bytes."""


def weights(model: Model, stored: str | None) -> Choice[str]:
    """The dtype of the weights while they are trained, by its name in PyTorch.

    `stored` is the dtype of the model's files, None where it is not known or there are none.
    """
    written = model.load.get("dtype")
    if written == "auto":
        return Choice(stored or "float32", "spec.model.load.dtype: auto, as they are stored")
    if written is not None:
        return Choice(str(written), "spec.model.load.dtype")
    if stored in HALVES:
        lost = f"updates smaller than {_LOST_BELOW[stored]} of a weight would be lost"
        return Choice("float32", f"stored in {stored}, where {lost}; final/ is written in {stored}")
    return Choice("float32", "what is trained is held in float32, unless spec.model.load.dtype says otherwise")
