"""What model and processor would refuse, or drop without a word: said before they are loaded."""

from collections.abc import Iterator

from trainyard.plan import configfile
from trainyard.spec import library
from trainyard.spec.hints import did_you_mean
from trainyard.spec.model import Spec
from trainyard.spec.tasks import TASKS
from trainyard.spec.yamltext import Problem

_CALL_OWNED = {
    "return_tensors": "rows are kept as lists until the collator makes tensors",
    "is_split_into_words": "it follows from the task",
    "return_special_tokens_mask": "it follows from the task",
    "return_overflowing_tokens": "it makes several rows of one, which have no label of their own",
}
"""Keywords of a processor's call that the tasks set, or that would break them."""

_PLACED = "the Trainer places the model; spec.strategy spreads it"
_LOAD_OWNED = {
    "config": "write spec.model.config",
    "revision": "write spec.model.revision",
    "trust_remote_code": "write spec.model.trustRemoteCode",
    "torch_dtype": "write dtype",
    "token": "credentials come from the environment of the pods",
    "ignore_mismatched_sizes": "it follows from the task: a head of another size is trained from scratch",
    "quantization_config": "quantized models do not train yet in this version",
    **dict.fromkeys(("device_map", "max_memory", "offload_folder", "offload_buffers", "device_mesh"), _PLACED),
    **dict.fromkeys(("tp_plan", "tp_size", "distributed_config"), _PLACED),
    **dict.fromkeys(
        ("state_dict", "generation_config", "output_loading_info", "tqdm_class"), "a manifest cannot hold it"
    ),
}
"""Arguments of from_pretrained that a manifest cannot set under model.load, and why."""

_CONFIG_HAS_IT_TOO = ("generation_config", "quantization_config")
_NO_LIMIT = 10**9
"""A tokenizer that knows no limit says 10**30."""
_DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def call_keywords(spec: Spec) -> Iterator[Problem]:
    """Keywords that the processor's call does not take: a tokenizer drops them without a word."""
    info = TASKS.get(spec.task or "")
    if info is None or (spec.model is not None and spec.model.trust_remote_code):
        return
    known = library.call_keywords(spec.processor.class_ or info.processor_class)
    for key in spec.processor.call:
        where = ("spec", "processor", "call", key)
        if key in _CALL_OWNED:
            yield Problem(where, f"set by trainyard: {_CALL_OWNED[key]}. Remove it")
        elif known is not None and key not in known:
            yield Problem(where, f"the processor's call has no such keyword. {did_you_mean(key, known)}")


def load_arguments(spec: Spec) -> Iterator[Problem]:
    """Arguments of model.load that from_pretrained does not take, or that stand elsewhere."""
    if spec.model is None:
        return
    known = library.names("load_from_config" if spec.model.from_config else "load")
    for key, written in spec.model.load.items():
        where = ("spec", "model", "load", key)
        if key in _LOAD_OWNED:
            yield Problem(where, f"{_LOAD_OWNED[key]}. Remove it here")
        elif key not in known:
            allowed = [name for name in known if name not in _LOAD_OWNED]
            function = "from_config" if spec.model.from_config else "from_pretrained"
            yield Problem(where, f"{function} has no such argument. {did_you_mean(key, allowed)}")
        elif key == "dtype" and written not in _DTYPES:
            yield Problem(where, f"{written!r} is none of {', '.join(_DTYPES)}")


def label_fields(spec: Spec) -> Iterator[Problem]:
    """The labels in model.config, where they are not of the form that transformers reads."""
    config = spec.model.config if spec.model is not None else {}
    where = ("spec", "model", "config")
    for name, sides in (("id2label", "ids to names: {0: neg, 1: pos}"), ("label2id", "names to ids: {neg: 0, pos: 1}")):
        labels = config.get(name)
        if labels is None:
            continue
        ids = (labels if name == "id2label" else labels.values()) if isinstance(labels, dict) else [None]
        if not all(str(each).isdecimal() for each in ids):
            yield Problem((*where, name), f"it maps {sides}")
    count = config.get("num_labels")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        yield Problem((*where, "num_labels"), f"{count!r} is no whole number")


def config_fields(spec: Spec) -> Iterator[Problem]:
    """Fields of model.config that are no fields of a Config but arguments of from_pretrained."""
    for key, written in spec.model.config.items() if spec.model is not None else ():
        if key not in library.names("load") or key in _CONFIG_HAS_IT_TOO:
            continue
        fix = _LOAD_OWNED.get(key, f"write spec.model.load: {{{key}: {written}}}")
        yield Problem(("spec", "model", "config", key), f"it is an argument of from_pretrained, no field: {fix}")


def _longest_row(spec: Spec) -> int | None:
    """The most tokens that the model has positions for, by its config.json and the manifest; None if not known."""
    if spec.model is None:
        return None
    config = {**configfile.read(spec.model), **spec.model.config}
    positions = library.positions(str(config.get("model_type")))
    return positions.longest_row(config) if positions is not None else None


def row_length(spec: Spec) -> Iterator[Problem]:
    """A max_length above the positions of a model whose config.json is on this machine, or in the manifest."""
    length = spec.processor.call.get("max_length")
    if not isinstance(length, int):
        return
    longest = _longest_row(spec)
    if longest is not None and length > longest:
        message = f"{length} tokens, and the model has positions for {longest}: write max_length: {longest}"
        yield Problem(("spec", "processor", "call", "max_length"), message)


def truncation(spec: Spec) -> Iterator[str]:
    """A warning about `truncation: true` without max_length: the tokenizer's limit may be larger than the model's."""
    call = spec.processor.call
    if spec.model is None or not call.get("truncation") or call.get("max_length") is not None:
        return
    longest = _longest_row(spec)
    tokenizer = configfile.document(spec.processor.source or spec.model.source, "tokenizer_config.json")
    if longest is None or not tokenizer:
        return
    cut = {**tokenizer, **spec.processor.load}.get("model_max_length")
    if not isinstance(cut, int) or cut > longest:
        where = f"at {cut}" if isinstance(cut, int) and cut < _NO_LIMIT else "nowhere"
        yield (
            f"spec.processor.call.truncation: the tokenizer cuts {where}, and the model has positions for {longest}: "
            f"write max_length: {longest}"
        )
