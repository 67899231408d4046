"""What makes a run this run: its task, model and data. A run of the same name with others is refused, not mixed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from trainyard.plan import files, sources
from trainyard.plan.fingerprint import fingerprint
from trainyard.spec.model import Spec


def identity(spec: Spec) -> dict[str, Any]:
    """The parts that may not change under a name, by their path in the manifest, with digests of local inputs."""
    if spec.script is not None:  # what it trains and on what is its own to say
        return {"script.path": spec.script.path}
    assert spec.model is not None
    assert spec.data is not None
    parts: dict[str, Any] = {
        "task": spec.task,
        "model.source": spec.model.source,
        "model.revision": spec.model.revision,
        "model.class": spec.model.class_,
        "model.config": spec.model.config,
        "model.fromConfig": spec.model.from_config,
        "processor": spec.processor.model_dump(by_alias=True, mode="json", exclude_defaults=True),
        "data.train": spec.data.train.model_dump(by_alias=True, mode="json", exclude_defaults=True),
        "data.evaluation": spec.data.evaluation.model_dump(by_alias=True, mode="json", exclude_defaults=True)
        if spec.data.evaluation
        else None,
    }
    for where, source in sources.named(spec).items():
        # Code may be mended between two attempts, and what it began with be gone: that is no other run.
        if where not in (("spec", "code"), ("spec", "resumeFrom")) and (paths := _local(source)):
            name = ".".join(where[1:]).removesuffix(".source")
            parts[f"content of {name}"] = " ".join(fingerprint(path) for path in paths)
    return parts


def training(manifest: dict[str, Any]) -> str:
    """SHA-256 in hex over what a manifest may change of a run, and what makes a finished run continue when it does."""
    parts = {key: manifest["spec"].get(key) for key in ("trainingArguments", "strategy", "accelerate")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _local(source: str) -> list[Path]:
    """The files and folders on this machine that a source names, a pattern's matches among them."""
    return files.matching(source)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in words."""
    return [
        f"spec.{key} was {_shown(before.get(key))}, now {_shown(now.get(key))}"
        if not key.startswith("content")
        else f"the {key.replace('content of ', 'content of spec.')} has changed"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"
