"""A trained model or checkpoint, measured again or used, without a launcher: one process, no Ray."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, Trainer, TrainingArguments

from trainyard.errors import JobError, NotFoundError
from trainyard.plan.labels import NUMBERS, SEVERAL
from trainyard.spec.model import Model, Spec, Storage
from trainyard.train import adapter, data, model, processor
from trainyard.train.choices import Choices
from trainyard.train.processor import first_line
from trainyard.train.sources import local_folder
from trainyard.train.tasks import TABLE
from trainyard.train.tasks.base import Encoding, Task
from trainyard.train.tasks.sequence import ids_only


@dataclass(frozen=True)
class Trained:
    """A model folder on this machine, and the task that it was trained for."""

    folder: Path
    task: Task
    storage: Storage
    """Whose endpoint serves the weights of an adapter's base model, where they lie at a URI."""
    problem_type: str | None
    """Of a model that classifies rows: transformers' problem_type; else None."""


def find(source: str, storage: Storage, task: str | None) -> Trained:
    """The model at a folder or URI. Raises NotFoundError, or JobError when its task is not known."""
    folder = Path(local_folder(source, storage))
    config_file = adapter.config_folder(folder) / "config.json"
    if not config_file.exists():
        raise NotFoundError(
            f"{source} holds no config.json, so it is no model; name a run's final folder or a checkpoint"
        )
    config = json.loads(config_file.read_text(encoding="utf-8"))
    name = task or config.get("task") or _task_of_run(folder) or _task_of_class(folder, config)
    if name not in TABLE:
        raise JobError(f"{source}: the task is {name or 'not known'}; give one of {', '.join(TABLE)} with --task")
    task_code = TABLE[name]
    problem_type = config.get("problem_type") if task_code.info.label_kind == "class" else None
    return Trained(folder, task_code, storage, problem_type)


def evaluate(trained: Trained, spec: Spec, batch_size: int) -> dict[str, float]:
    """The metrics of the model on the evaluation data of a spec, or on its training data when it has no other."""
    task = trained.task
    config = AutoConfig.from_pretrained(adapter.config_folder(trained.folder))
    own = spec.model_copy(
        update={
            "model": Model(source=str(trained.folder)),
            "processor": spec.processor.model_copy(update={"source": str(trained.folder)}),
        }
    )
    choices = Choices()
    encoder = processor.load(own, task, choices)
    rows, labels = data.load_for_model(spec, task, config)
    where = "data.evaluation" if spec.data.evaluation is not None else "data.train"
    block = data.block_size(spec, task, encoder, config)
    encoded = data.encode(rows, task, Encoding(encoder, spec.processor.call, labels, block), where)
    if adapter.is_adapter(trained.folder):
        net = adapter.load(trained.folder, task.info.auto_class, spec.storage)
    else:
        net = model.load(own, task, config, Choices())
    data.check_lengths(spec, task, net, {where: encoded}, choices)
    trainer = Trainer(
        model=net,
        args=TrainingArguments(
            output_dir=str(trained.folder),
            per_device_eval_batch_size=batch_size,
            disable_tqdm=True,
            report_to="none",
            remove_unused_columns=not task.lazy,
        ),
        eval_dataset=encoded,
        processing_class=encoder,
        data_collator=task.collator(encoder, None),
        compute_metrics=task.metrics(labels),
        preprocess_logits_for_metrics=ids_only if task.predicts_ids else None,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return {name: float(value) for name, value in trainer.evaluate().items() if isinstance(value, int | float)}


def predict(trained: Trained, inputs: list[str]) -> Iterator[tuple[str, Any]]:
    """Each input with what transformers' pipeline() answers to it.

    Of several labels those whose probability is above one half are answered; of a regression the number, or a list of
    its numbers. Raises JobError when there is no pipeline, or it cannot take an input.
    """
    name = trained.task.info.name
    try:
        pipe = _pipeline(name, trained)
    except (OSError, ValueError, KeyError) as error:
        raise JobError(f"{trained.folder}: no {name} pipeline: {first_line(error)}") from error
    for text in inputs:
        try:
            yield text, _answer(pipe(text), trained, pipe.model.config.label2id)
        except (ValueError, OSError) as error:
            raise JobError(f"{text[:60]!r}: {first_line(error)}") from error


def _pipeline(name: str, trained: Trained) -> Any:
    folder = str(trained.folder)
    outputs = _WHOLE.get(trained.problem_type, {})
    if not adapter.is_adapter(trained.folder):
        return transformers.pipeline(name, model=folder, **outputs)
    net = adapter.load(trained.folder, trained.task.info.auto_class, trained.storage)
    processors = {"AutoTokenizer": "tokenizer", "AutoImageProcessor": "image_processor"}
    own = {processors[trained.task.info.processor_class]: folder}
    return transformers.pipeline(name, model=net, **own, **outputs)


_WHOLE: dict[str | None, dict[str, Any]] = {
    SEVERAL: {"top_k": None, "function_to_apply": "sigmoid"},
    NUMBERS: {"top_k": None, "function_to_apply": "none"},
}
"""What has a pipeline answer all outputs, by the problem type; nothing for one label, which it finds itself."""


def _answer(answer: Any, trained: Trained, ids: dict[str, int]) -> Any:
    """What is answered of all outputs: the labels above one half, or the numbers in the order of the outputs."""
    if trained.problem_type not in _WHOLE:
        return answer
    outputs = answer[0] if answer and isinstance(answer[0], list) else answer  # the pipeline of texts nests them
    if trained.problem_type == SEVERAL:
        return [output for output in outputs if output["score"] > 0.5]
    by_id = sorted(outputs, key=lambda output: ids[output["label"]])
    numbers = [output["score"] for output in by_id]
    return numbers[0] if len(numbers) == 1 else numbers


def _task_of_run(folder: Path) -> str | None:
    """The task from the run.json above a checkpoint."""
    file = folder.parent.parent / "run.json"
    if not file.exists():
        return None
    spec = json.loads(file.read_text(encoding="utf-8"))["manifest"]["spec"]
    return spec.get("task")  # a script's run has none


def _task_of_class(folder: Path, config: dict[str, Any]) -> str | None:
    """The task whose Auto class makes the class that the config names, as that of a script's model does."""
    architectures = config.get("architectures") or []
    try:
        config_class = type(AutoConfig.from_pretrained(adapter.config_folder(folder)))
    except ValueError:
        return None  # of a type that transformers does not know
    for name, task in TABLE.items():
        model_class = getattr(transformers, task.info.auto_class)._model_mapping.get(config_class, None)
        if getattr(model_class, "__name__", None) in architectures:
            return name
    return None
