"""Stage 3: the model, from weights or from its Config alone, with the data's labels in its config."""

from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from trainyard.errors import JobError
from trainyard.plan.labels import Labels
from trainyard.plan.weights import weights
from trainyard.protocol import foreign
from trainyard.spec.model import Spec
from trainyard.train.choices import Choices
from trainyard.train.processor import first_line
from trainyard.train.sources import local_folder
from trainyard.train.tasks.base import Task


def label_names(spec: Spec) -> tuple[str, ...]:
    """The labels of the model that is fine-tuned, in the order of its ids; empty for a model from scratch."""
    if spec.model.source is None or spec.model.from_config:
        return ()
    try:
        config = AutoConfig.from_pretrained(
            local_folder(spec.model.source, spec.storage),
            revision=spec.model.revision or "main",
            trust_remote_code=spec.model.trust_remote_code,
        )
    except (OSError, ValueError, KeyError):
        return ()  # load_config() meets the same error, and reports it
    return tuple(str(name) for _, name in sorted(config.id2label.items()))


def load_config(spec: Spec, labels: Labels, processor: Any) -> PretrainedConfig:
    """The model's Config, with the labels and the manifest's overrides. Raises JobError."""
    own = ("id2label", "label2id") if labels.names else ()
    overrides = {**_label_fields(labels), **{key: value for key, value in spec.model.config.items() if key not in own}}
    try:
        if spec.model.source is None:
            model_type = overrides.pop("model_type")
            config = AutoConfig.for_model(model_type, **overrides)
        else:
            config = AutoConfig.from_pretrained(
                local_folder(spec.model.source, spec.storage),
                revision=spec.model.revision or "main",
                trust_remote_code=spec.model.trust_remote_code,
                **overrides,
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"spec.model: no Config from {spec.model.source or spec.model.config}: {first_line(error)}"
        ) from error
    unknown = [key for key in spec.model.config if key != "model_type" and not hasattr(config, key)]
    if unknown:
        raise JobError(f"spec.model.config.{unknown[0]}: {type(config).__name__} has no such field")
    if spec.model.from_config:
        _fit_to_tokenizer(config, processor, spec.model.config)
    return config


def final_dtype(spec: Spec, config: PretrainedConfig) -> torch.dtype | None:
    """The dtype in which `final/` is written: that of the model's files. None: as the weights were trained.

    Call it before load(), which writes the dtype of the loaded weights into the Config.
    """
    if spec.model.from_config or "dtype" in spec.model.load or config.dtype is None:
        return None
    stored: torch.dtype = getattr(torch, _name(config.dtype))
    return stored


def load(spec: Spec, task: Task, config: PretrainedConfig, choices: Choices) -> PreTrainedModel:
    """The model. With ZeRO-3 TrainingArguments must exist by now: from_pretrained then shards while it loads.

    Raises JobError when there are no weights, or the model is none for the task.
    """
    stored = final_dtype(spec, config)
    dtype = weights(spec.model, _name(stored) if stored is not None else None)
    choices.add("weights", dtype)
    arguments = {**spec.model.load, "dtype": spec.model.load.get("dtype", dtype.value)}
    name = spec.model.class_ or task.info.auto_class
    loader = getattr(transformers, name, None)
    if loader is None:
        raise JobError(f"spec.model.class: transformers {transformers.__version__} has no {name}")
    try:
        if spec.model.from_config:
            make = loader.from_config if name.startswith("Auto") else loader._from_config
            model = make(config, **arguments)
        else:
            model = loader.from_pretrained(
                local_folder(str(spec.model.source), spec.storage),
                config=config,
                revision=spec.model.revision or "main",
                trust_remote_code=spec.model.trust_remote_code,
                # A head with another number of labels is trained anew, which is what fine-tuning means.
                ignore_mismatched_sizes=task.info.label_kind != "none",
                **arguments,
            )
    except ValueError as error:
        if foreign.is_model_without_head(str(error)):
            message = f"spec.model: a {config.model_type} model cannot do {task.info.name}: {name} does not take it"
            raise JobError(f"{message}. Choose a model for the task, or another task") from error
        raise JobError(f"spec.model: {name} cannot be made: {first_line(error)}") from error
    except (OSError, RuntimeError, TypeError, AttributeError) as error:
        raise JobError(f"spec.model: {name} cannot be loaded from {spec.model.source}: {first_line(error)}") from error
    return model


def _name(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")


def _label_fields(labels: Labels) -> dict[str, Any]:
    if labels.problem_type == "regression":
        return {"num_labels": labels.outputs, "problem_type": "regression"}
    if not labels.names:
        return {}
    fields: dict[str, Any] = {
        "id2label": dict(enumerate(labels.names)),
        "label2id": {name: index for index, name in enumerate(labels.names)},
    }
    return fields | ({"problem_type": labels.problem_type} if labels.problem_type else {})


def _fit_to_tokenizer(config: PretrainedConfig, processor: Any, given: dict[str, Any]) -> None:
    """A model from scratch has as many embeddings as its tokenizer has tokens, and the same special ones."""
    if hasattr(processor, "__len__") and hasattr(config, "vocab_size") and "vocab_size" not in given:
        config.vocab_size = len(processor)
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if field not in given and hasattr(processor, field) and hasattr(config, field):
            setattr(config, field, getattr(processor, field))
