"""The JSON files of a model that lies on this machine."""

import json
from pathlib import Path
from typing import Any

from trainyard.plan.inputs import is_local
from trainyard.spec.model import Model


def read(model: Model | None) -> dict[str, Any]:
    """The fields of a model's config.json; empty where it is not on this machine or cannot be read."""
    return document(model.source if model is not None else None, "config.json")


def document(source: str | None, name: str) -> dict[str, Any]:
    """A JSON file of a model's folder; empty where it is not on this machine or cannot be read."""
    if source is None or not is_local(source):
        return {}
    try:
        fields = json.loads((Path(source).expanduser() / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def stored_dtype(model: Model | None) -> str | None:
    """The dtype in which its weights are stored, by its name in PyTorch; None where it is not known."""
    fields = read(model)
    name = fields.get("dtype", fields.get("torch_dtype"))  # transformers 4 wrote the second
    return name if isinstance(name, str) and model is not None and not model.from_config else None
