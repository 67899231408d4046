"""As many embeddings as the tokenizer has tokens."""

from typing import Any

from transformers import PreTrainedModel

from trainyard.plan import vocabulary
from trainyard.train.choices import Choices


def fit(model: PreTrainedModel, processor: Any, choices: Choices) -> None:
    """Give the model embeddings for tokens that were added to its tokenizer. Larger ones stay: many are padded.

    The new rows are drawn around the mean of the old ones (resize_token_embeddings), with the generator as it is: seed
    it before, so that every rank draws the same.
    """
    if not hasattr(processor, "__len__") or not hasattr(model, "get_input_embeddings"):
        return
    embeddings = model.get_input_embeddings()
    rows = getattr(embeddings, "num_embeddings", None)
    if rows is None or rows >= len(processor):
        return
    model.resize_token_embeddings(len(processor))
    choices.add("embeddings", vocabulary.added(len(processor), rows))
