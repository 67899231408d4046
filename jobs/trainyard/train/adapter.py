"""Adapters of PEFT: what `final/` holds of one, and the model that it makes of its base model.

A folder with an adapter has adapter_config.json and no config.json: transformers takes a folder that has both for a
whole model with an adapter inside. The Config with the data's labels and the task lies in `base/`.
"""

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedModel

from trainyard import extras
from trainyard.errors import JobError
from trainyard.spec.model import Model, Storage
from trainyard.train.processor import first_line
from trainyard.train.sources import is_remote, local_folder

CONFIG = "adapter_config.json"
BASE = "base"
"""The folder below an adapter's with the Config of its base model."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no whole model."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def config_folder(folder: Path) -> Path:
    """Where the config.json of a model lies, of an adapter that of its base model."""
    return folder / BASE if is_adapter(folder) else folder


def describe(folder: Path, model: Any, source: Model) -> None:
    """Write into an adapter's folder what loading it needs: the base model's Config, and where its weights are."""
    model.config.save_pretrained(folder / BASE)
    file = folder / CONFIG
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    path = Path(str(source.source)).expanduser()
    local = not is_remote(str(source.source)) and path.exists()
    config["base_model_name_or_path"] = str(path.resolve()) if local else source.source
    config["revision"] = source.revision
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(folder: Path, auto_class: str, storage: Storage) -> PreTrainedModel:
    """The base model with an adapter merged into its weights. Raises JobError when the two do not fit or are not there.

    Raises MissingExtraError without PEFT.
    """
    extras.need("llm", "using an adapter")
    from peft import PeftModel

    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    source = str(written["base_model_name_or_path"])
    try:
        base = getattr(transformers, auto_class).from_pretrained(
            local_folder(source, storage),
            config=AutoConfig.from_pretrained(config_folder(folder)),
            revision=written.get("revision") or "main",
            dtype="float32",
            ignore_mismatched_sizes=True,  # the head comes with the adapter
        )
        merged: PreTrainedModel = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise JobError(f"{folder}: no adapter of {source} can be loaded: {first_line(error)}") from error
    return merged
