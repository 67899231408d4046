"""Stage 1: the processor (tokenizer, image processor, …)."""

import inspect
from typing import Any

import transformers

from trainyard.errors import JobError
from trainyard.plan.choice import Choice
from trainyard.spec.hints import did_you_mean
from trainyard.spec.model import Spec
from trainyard.train.choices import Choices
from trainyard.train.sources import local_folder
from trainyard.train.tasks.base import Task

_OTHER_CALL_ARGUMENTS = ("split_special_tokens", "max_target_length")
"""What a tokenizer's __call__ takes out of its **kwargs (transformers.PreTrainedTokenizerBase)."""

_OWN_ARGUMENTS = ("revision", "trust_remote_code")
"""Arguments of from_pretrained that have fields of their own in the manifest."""


def load(spec: Spec, task: Task, choices: Choices) -> Any:
    """The processor of a job. Raises JobError when it cannot be loaded, or lacks what the task needs of it."""
    source = spec.processor.source or spec.model.source
    if source is None:
        raise JobError("spec.processor.source is missing, and there is no model.source to take it from")
    name = spec.processor.class_ or task.info.processor_class
    loader = getattr(transformers, name, None)
    if loader is None:
        raise JobError(f"spec.processor.class: transformers {transformers.__version__} has no {name}")
    own = next((key for key in _OWN_ARGUMENTS if key in spec.processor.load), None)
    if own is not None:
        raise JobError(f"spec.processor.load.{own}: write processor.revision, or model.trustRemoteCode")
    try:
        processor = loader.from_pretrained(
            local_folder(source, spec.storage),
            revision=spec.processor.revision or spec.model.revision or "main",
            trust_remote_code=spec.model.trust_remote_code,
            **spec.processor.load,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"spec.processor: {name} cannot be loaded from {source}: {first_line(error)}") from error
    _check_call(processor, spec.processor.call)
    _check_special_tokens(processor, task, source)
    _pad(processor, source, choices)
    return processor


def first_line(error: BaseException) -> str:
    """The first sentence of an error, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _check_call(processor: Any, call: dict[str, Any]) -> None:
    """Raises JobError for an argument that the processor's __call__ would drop without a word."""
    arguments = _call_arguments(processor)
    for name in call:
        if not arguments or name in arguments:
            continue
        raise JobError(
            f"spec.processor.call.{name}: the call of {type(processor).__name__} has no such keyword. "
            f"{did_you_mean(name, sorted(arguments))}"
        )


def _call_arguments(processor: Any) -> set[str]:
    """Names of the arguments that a processor's __call__ takes; empty where they cannot be known."""
    if isinstance(processor, transformers.PreTrainedTokenizerBase):
        names = {*_parameters(processor.__call__), *_parameters(transformers.PreTrainedTokenizerBase.__call__)}
        return {*names, *_OTHER_CALL_ARGUMENTS} - {"self", "kwargs", "text", "text_pair"}
    kwargs = getattr(processor, "valid_kwargs", None)
    return set(getattr(kwargs, "__annotations__", {}))


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _check_special_tokens(processor: Any, task: Task, source: str) -> None:
    for name in task.info.special_tokens:
        if getattr(processor, name, None) is None:
            words = name.removesuffix("_token")
            raise JobError(
                f"spec.processor: {task.info.name} needs a {words} token, and the tokenizer of {source} has none. Add "
                f"one with processor.load: {{{name}: <{words}>}}, or choose a model that was trained with one"
            )


def _pad(processor: Any, source: str, choices: Choices) -> None:
    """Collators pad; models that are trained on running text (GPT-2) have no token of their own for it."""
    if getattr(processor, "pad_token", "") is not None:
        return
    if processor.eos_token is None:
        raise JobError(
            f"spec.processor: the tokenizer of {source} has neither a padding nor an end-of-text token, and rows are "
            "padded to one length. Add one with processor.load: {pad_token: <pad>}"
        )
    processor.pad_token = processor.eos_token
    choices.add("pad token", Choice(processor.pad_token, "the tokenizer has none, so its end-of-text token pads"))
