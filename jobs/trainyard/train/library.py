"""Generates spec/library.json: what the pinned transformers takes beside TrainingArguments.

Signatures say it where there are signatures; the sources of transformers say the rest, such as the keys that an
optimizer's handler reads. `python -m docs.generate --check` compares the file with the installed transformers.
"""

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import torch._inductor
import transformers
from accelerate.utils import DynamoBackend
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import PreTrainedModel, PreTrainedTokenizerBase, processing_utils, trainer_optimizer
from transformers.debug_utils import DebugOption
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, model_type_to_module_name
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import SchedulerType

_SCHEDULE_CLASSES = {SchedulerType.REDUCE_ON_PLATEAU: ReduceLROnPlateau, SchedulerType.GREEDY: GreedyLR}
"""Schedules whose function passes **kwargs to a class."""

_PLACED_BY_TRAINER = {"self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
_ROWS_OF_TEXT = {"self", "text", "text_pair", "text_target", "text_pair_target", "kwargs"}
_LEARNED_POSITIONS = re.compile(
    r"(?:nn\.Embedding|LearnedPositionalEmbedding)\(\s*config\.(?:max_position_embeddings|n_positions),"
)
_PADDING_BEFORE_POSITIONS = "create_position_ids_from_input_ids"
_OPTIONAL_POSITIONS = "position_biased_input"


def library() -> dict[str, Any]:
    """The document that spec/library.py reads."""
    return {
        "transformers": transformers.__version__,
        "schedules": {kind.value: _schedule(kind) for kind in TYPE_TO_SCHEDULER_FUNCTION},
        "optimizers": {str(name.value): _optimizer(str(name.value)) for name in trainer_optimizer.OptimizerNames},
        "report_to": sorted(INTEGRATION_TO_CALLBACK),
        "debug": [option.value for option in DebugOption],
        "torch_compile_backend": sorted(backend.value.lower() for backend in DynamoBackend),
        "torch_compile_mode": sorted(torch._inductor.list_mode_options()),
        "accelerator_config": [field.name for field in dataclasses.fields(AcceleratorConfig)],
        "call": {"AutoTokenizer": _tokenizer_call(), "AutoImageProcessor": _image_call()},
        "load": _from_pretrained(),
        "load_from_config": sorted(_popped(PreTrainedModel._from_config)),
        "positions": _positions(),
    }


def text() -> str:
    """The file's text, as it is committed."""
    return json.dumps(library(), indent=1, ensure_ascii=False) + "\n"


def _schedule(kind: SchedulerType) -> dict[str, list[str]]:
    """The names in lr_scheduler_kwargs that a schedule requires and those that it takes."""
    function = _SCHEDULE_CLASSES.get(kind) or TYPE_TO_SCHEDULER_FUNCTION[kind]
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _PLACED_BY_TRAINER
    }
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    return {"required": required, "known": list(parameters)}


def _optimizer(name: str) -> dict[str, Any]:
    """The keys in optim_args that an optimizer's handler reads with their types, and the package that it imports."""
    source = inspect.getsource(trainer_optimizer._OPTIMIZER_HANDLERS[name])
    read = re.findall(r'(?:(\w+)\()?ctx\.optim_args(?:\.get\(|\.pop\(|\[)\s*"(\w+)"', source)
    keys = {key: kind if kind in ("int", "float") else "str" for kind, key in read}
    for names in re.findall(r"for key in (\([^)]*\))", source):
        keys |= dict.fromkeys(ast.literal_eval(names), "float")
    imported = [module for module in re.findall(r"from (\w+)[\w.]* import", source) if module != "torch"]
    return {
        "arguments": dict(sorted(keys.items())),
        # bitsandbytes' RMSprop gets optim_args as they are.
        "any_arguments": "= ctx.optim_args\n" in source and "rmsprop" in name,
        "package": imported[0] if imported else None,
        "target_modules": "_setup_low_rank_optimizer" in source,
        "layerwise": name.endswith("layerwise"),
    }


def _tokenizer_call() -> list[str]:
    called = inspect.signature(PreTrainedTokenizerBase.__call__).parameters
    return sorted(set(called) - _ROWS_OF_TEXT)


def _image_call() -> list[str]:
    """Keywords of every image processor: those of all, and those that only some take."""
    names = set(processing_utils.ImagesKwargs.__annotations__)
    models = Path(transformers.__file__).parent / "models"
    for file in sorted(models.glob("*/image_processing_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            bases = {base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name)}
            if isinstance(node, ast.ClassDef) and "ImagesKwargs" in bases:
                fields = [field.target for field in node.body if isinstance(field, ast.AnnAssign)]
                names |= {field.id for field in fields if isinstance(field, ast.Name)}
    return sorted(names)


def _from_pretrained() -> list[str]:
    named = set(inspect.signature(PreTrainedModel.from_pretrained).parameters)
    popped = _popped(PreTrainedModel.from_pretrained)
    return sorted(name for name in (named | popped) - {"pretrained_model_name_or_path", "model_args", "kwargs"})


def _popped(function: Any) -> set[str]:
    """Names that a function takes out of its **kwargs."""
    names = re.findall(r'kwargs\.pop\(\s*"(\w+)"', inspect.getsource(function))
    return {name for name in names if not name.startswith("_")}


def _positions() -> dict[str, dict[str, Any]]:
    """Model types with learned position embeddings: longer rows have no embedding, and are an index error."""
    folder = Path(transformers.__file__).parent / "models"
    found = {}
    for model_type in sorted(CONFIG_MAPPING):
        module = model_type_to_module_name(model_type)
        file = folder / module / f"modeling_{module}.py"
        source = file.read_text(encoding="utf-8") if file.exists() else ""
        if not _LEARNED_POSITIONS.search(source) or _OPTIONAL_POSITIONS in source:
            continue
        config = CONFIG_MAPPING[model_type]
        field = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        default = getattr(config, field, None)
        if isinstance(default, int):
            after_padding = _PADDING_BEFORE_POSITIONS in source
            found[model_type] = {"field": field, "default": default, "after_padding": after_padding}
    return found
