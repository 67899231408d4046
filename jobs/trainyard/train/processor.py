"""Stage 1: the processor (tokenizer, image processor, …)."""

from typing import Any

import transformers

from trainyard.errors import JobError
from trainyard.spec.model import Spec
from trainyard.train.sources import local_folder
from trainyard.train.tasks.base import Task


def load(spec: Spec, task: Task) -> Any:
    """The processor of a job. Raises JobError when it cannot be loaded."""
    source = spec.processor.source or spec.model.source
    if source is None:
        raise JobError("spec.processor.source is missing, and there is no model.source to take it from")
    name = spec.processor.class_ or task.info.processor_class
    loader = getattr(transformers, name, None)
    if loader is None:
        raise JobError(f"spec.processor.class: transformers {transformers.__version__} has no {name}")
    revision = spec.processor.revision or spec.model.revision or "main"
    try:
        processor = loader.from_pretrained(
            local_folder(source, spec.storage), revision=revision, trust_remote_code=spec.model.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise JobError(f"spec.processor: {name} cannot be loaded from {source}: {first_line(error)}") from error
    if getattr(processor, "pad_token", "") is None:
        # Collators pad; models trained on running text (GPT-2) have no token of their own for it.
        processor.pad_token = processor.eos_token
    return processor


def first_line(error: BaseException) -> str:
    """The first sentence of an error, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
