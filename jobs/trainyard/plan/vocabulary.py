"""Tokens that were added to a tokenizer, and the embeddings that the model gets for them."""

from trainyard.plan import configfile
from trainyard.plan.choice import Choice
from trainyard.spec.model import Spec


def embeddings(spec: Spec) -> Choice[str] | None:
    """The embeddings that the model gets before it trains; None where it has enough, or where that is not known here.

    Known is what the files say that lie on this machine: config.json of the model and tokenizer.json of the processor.
    """
    if spec.model is None:
        return None
    rows = {**configfile.read(spec.model), **spec.model.config}.get("vocab_size")
    tokens = _tokens(spec.processor.source or spec.model.source)
    if not isinstance(rows, int) or tokens is None or tokens <= rows:
        return None
    return added(tokens, rows)


def added(tokens: int, rows: int) -> Choice[str]:
    """The line of the plan about a model of `rows` embeddings with a tokenizer of more tokens."""
    reason = f"the tokenizer has {tokens} tokens, and the model had {rows} embeddings; new ones are their mean"
    return Choice(f"{tokens} rows", reason)


def _tokens(source: str | None) -> int | None:
    """Tokens of a tokenizer, the added ones included, by its tokenizer.json; None where that is not here.

    The vocabulary is a mapping of tokens to numbers, or a list of [token, score] pairs (Unigram).
    """
    fields = configfile.document(source, "tokenizer.json")
    try:
        vocabulary = fields["model"]["vocab"]
        known = set(vocabulary) if isinstance(vocabulary, dict) else {token for token, _ in vocabulary}
        return len(known | {token["content"] for token in fields.get("added_tokens", [])})
    except (KeyError, TypeError, ValueError):
        return None
