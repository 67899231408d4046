"""A trained model or checkpoint, measured again or used, without a launcher: one process, no Ray."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, Trainer, TrainingArguments

from trainyard.errors import JobError, NotFoundError
from trainyard.spec.model import Model, Spec, Storage
from trainyard.train import data, model, processor
from trainyard.train.processor import first_line
from trainyard.train.sources import local_folder
from trainyard.train.tasks import TABLE
from trainyard.train.tasks.base import Encoding, Labels, Task
from trainyard.train.tasks.sequence import ids_only


@dataclass(frozen=True)
class Trained:
    """A model folder on this machine, and the task that it was trained for."""

    folder: Path
    task: Task


def find(source: str, storage: Storage, task: str | None) -> Trained:
    """The model at a folder or URI. Raises NotFoundError, or JobError when its task is not known."""
    folder = Path(local_folder(source, storage))
    config_file = folder / "config.json"
    if not config_file.exists():
        raise NotFoundError(
            f"{source} holds no config.json, so it is no model; name a run's final folder or a checkpoint"
        )
    name = task or json.loads(config_file.read_text(encoding="utf-8")).get("task") or _task_of_run(folder)
    if name not in TABLE:
        raise JobError(f"{source}: the task is {name or 'not known'}; give one of {', '.join(TABLE)} with --task")
    return Trained(folder, TABLE[name])


def evaluate(trained: Trained, spec: Spec, batch_size: int) -> dict[str, float]:
    """The metrics of the model on the evaluation data of a spec, or on its training data when it has no other."""
    task = trained.task
    config = AutoConfig.from_pretrained(trained.folder)
    own = spec.model_copy(
        update={
            "model": Model(source=str(trained.folder)),
            "processor": spec.processor.model_copy(update={"source": str(trained.folder)}),
        }
    )
    encoder = processor.load(own, task)
    raw = data.load(spec, task)
    rows = raw.evaluation if raw.evaluation is not None else raw.train
    labels = _labels_of(config, raw.labels)
    data.check_labels(rows, task, labels)
    block = data.block_size(spec, encoder, config) if task.info.name == "text-generation" else 0
    encoded = data.encode(rows, task, Encoding(encoder, spec.processor.call, labels, block))
    trainer = Trainer(
        model=model.load(own, task, config),
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
    """What transformers' pipeline() answers to each input."""
    try:
        pipe = transformers.pipeline(trained.task.info.name, model=str(trained.folder))
    except (OSError, ValueError, KeyError) as error:
        raise JobError(f"{trained.folder}: no {trained.task.info.name} pipeline: {first_line(error)}") from error
    for text in inputs:
        try:
            yield text, pipe(text)
        except (ValueError, OSError) as error:
            raise JobError(f"{text[:60]!r}: {first_line(error)}") from error


def _labels_of(config: Any, found: Labels) -> Labels:
    """The labels in the order of the trained model."""
    if not found.names or found.ids:
        return found
    names = tuple(name for _, name in sorted(config.id2label.items()))
    return Labels(names, found.problem_type)


def _task_of_run(folder: Path) -> str | None:
    """The task from the run.json above a checkpoint."""
    file = folder.parent.parent / "run.json"
    if not file.exists():
        return None
    return str(json.loads(file.read_text(encoding="utf-8"))["manifest"]["spec"]["task"])
