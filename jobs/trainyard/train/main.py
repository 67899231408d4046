"""A training process, from processor to exported model: what every rank runs, in its main thread."""

import contextlib
import logging
import os
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import torch
import torch.distributed as dist
import transformers

from trainyard.plan.metric import check_metric
from trainyard.protocol.ending import Ending
from trainyard.train import (
    arguments,
    code,
    data,
    embeddings,
    export,
    failures,
    heartbeat,
    model,
    processor,
    script,
    trainer,
)
from trainyard.train.callbacks import AgreementCallback
from trainyard.train.choices import Choices
from trainyard.train.course import Course
from trainyard.train.events import Events
from trainyard.train.goodput import Clock
from trainyard.train.heartbeat import Heart
from trainyard.train.tasks import TABLE
from trainyard.train.tasks.base import Encoding
from trainyard.train.work import Work


def run(work: Work) -> Ending:
    """One attempt in this process, as the rank that the environment names. Returns its ending; never raises."""
    Clock.start(work.began, work.restoring)
    events = Events(work.events if _rank() == 0 else None, work.attempt)
    Heart.mine = Heart(heartbeat.file(Path(work.staging), _rank()))
    course = Course(events, Heart.mine)
    try:
        _quiet()
        course.enter("preparing")
        code.enter(work.job.spec)
        if work.job.spec.script is not None:
            return script.run(work, course)
        return _train(work, course)
    except Exception as error:  # noqa: BLE001 - the boundary of user code: whatever it raises becomes an ending
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        return failures.ending_of(error, course.step, work)
    finally:
        with contextlib.suppress(Exception):
            # Left alone, gloo's threads can abort the process after success.
            if dist.is_initialized():
                dist.destroy_process_group()


@dataclass(frozen=True)
class _Built:
    """What is ready to train."""

    trainer: transformers.Trainer
    stop: AgreementCallback
    """Knows whether training was stopped."""
    final_dtype: torch.dtype | None
    """The dtype in which `final/` is written."""


def _train(work: Work, course: Course) -> Ending:
    events, choices = course.events, Choices()
    built = _build(work, course, choices)
    course.trainer = built.trainer
    choices.report(events)
    trainer.train(work, built.trainer, events)
    if built.stop.stopped:
        return Ending.stopped("stopped when asked; the step is committed", course.step)
    events.send("phase", text="evaluating")
    metrics = export.evaluate(built.trainer)
    events.send("phase", text="exporting")
    described = replace(work, notes={**work.notes, **choices.notes()})
    final = export.export(described, built.trainer, metrics, built.final_dtype)
    events.send("final", url=final.url, metrics=final.metrics)
    return Ending.complete(final.url, course.step)


def _build(work: Work, course: Course, choices: Choices) -> _Built:
    spec = work.job.spec
    task = TABLE[spec.task]
    args = arguments.make(work)
    encoder = processor.load(spec, task, choices)
    course.enter("reading the data")
    with args.main_process_first(local=True, desc="reading the data"):
        raw = data.load(spec, task, model.label_names(spec), choices)
    check_metric(spec, task.info, raw.labels)
    config = model.load_config(spec, raw.labels, encoder)
    encoding = Encoding(encoder, spec.processor.call, raw.labels, data.block_size(spec, task, encoder, config))
    course.enter("encoding the data")
    with args.main_process_first(local=True, desc="encoding the data"):
        train_data = data.encode(raw.train, task, encoding, "data.train")
        evaluation = None
        if raw.evaluation is not None:
            written = replace(encoding, labels=raw.evaluation_labels)
            evaluation = data.encode(raw.evaluation, task, written, "data.evaluation")
    course.enter("loading the model")
    transformers.set_seed(args.seed)  # a new head is the same on every rank and in every run
    dtype = model.final_dtype(spec, config)
    net = model.load(spec, task, config, choices)
    embeddings.fit(net, encoder, choices)
    encoded = {"data.train": train_data, "data.evaluation": evaluation}
    data.check_lengths(spec, task, net, encoded, choices)
    parts = trainer.Parts(task, raw.labels, encoder, net, train_data, evaluation)
    return _Built(*trainer.build(work, parts, args, course.events), dtype)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _quiet() -> None:
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.WARNING
    )
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
