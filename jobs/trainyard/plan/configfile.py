"""The config.json of a model that lies on this machine."""

import json
from pathlib import Path
from typing import Any

from trainyard.plan.inputs import is_local
from trainyard.spec.model import Model


def read(model: Model | None) -> dict[str, Any]:
    """Its fields; empty where it is not on this machine or cannot be read."""
    source = model.source if model is not None else None
    if source is None or not is_local(source):
        return {}
    try:
        document = json.loads((Path(source).expanduser() / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def stored_dtype(model: Model | None) -> str | None:
    """The dtype in which its weights are stored, by its name in PyTorch; None where it is not known."""
    document = read(model)
    name = document.get("dtype", document.get("torch_dtype"))  # transformers 4 wrote the second
    return name if isinstance(name, str) and model is not None and not model.from_config else None
