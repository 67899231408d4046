"""A training process, from processor to exported model: what every rank runs, in its main thread."""

import contextlib
import errno
import logging
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.distributed as dist
import transformers

from trainyard.errors import DiskFullError, JobError, StorageError
from trainyard.storage.disk import full
from trainyard.train import arguments, code, data, embeddings, export, mend, model, processor, script, trainer
from trainyard.train.choices import Choices
from trainyard.train.events import Events
from trainyard.train.goodput import Clock
from trainyard.train.tasks import TABLE
from trainyard.train.tasks.base import Encoding
from trainyard.train.work import Result, Work

_PEER_SIGNS = ("Connection closed by peer", "Connection reset", "gloo", "NCCL", "Broken pipe", "Timed out waiting")


def run(work: Work) -> Result:
    """One attempt in this process, as the rank that the environment names. Never raises: the result tells."""
    Clock.start(work.began, work.restoring)
    step = 0
    built: transformers.Trainer | None = None
    events = Events(work.events if _rank() == 0 else None, work.attempt)
    choices = Choices()
    try:
        _quiet()
        code.enter(work.job.spec)
        if work.job.spec.script is not None:
            return script.run(work, events)
        built, stop = _build(work, events, choices)
        choices.report(events)
        trainer.train(work, built, events)
        step = built.state.global_step
        if stop.stopped:
            return Result("Stopped", "stopped when asked; the step is committed", step)
        events.send("phase", text="evaluating")
        metrics = export.evaluate(built)
        events.send("phase", text="exporting")
        described = replace(work, notes={**work.notes, **choices.notes()})
        final = export.export(described, built, metrics)
        events.send("final", url=final.url, metrics=final.metrics)
        return Result("Complete", final.url, step)
    except Exception as error:  # noqa: BLE001 - the boundary of user code: whatever it raises is told, not lost
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        step = built.state.global_step if built is not None else 0
        return _failed(error, step, work)
    finally:
        with contextlib.suppress(Exception):
            # Left alone, gloo's threads can abort the process after success.
            if dist.is_initialized():
                dist.destroy_process_group()


def _build(work: Work, events: Events, choices: Choices) -> tuple[transformers.Trainer, Any]:
    spec = work.job.spec
    task = TABLE[spec.task]
    events.send("phase", text="preparing")
    args = arguments.make(work)
    encoder = processor.load(spec, task, choices)
    with args.main_process_first(local=True, desc="reading the data"):
        raw = data.load(spec, task, model.label_names(spec), choices)
    config = model.load_config(spec, raw.labels, encoder)
    encoding = Encoding(encoder, spec.processor.call, raw.labels, data.block_size(spec, task, encoder, config))
    events.send("phase", text="encoding the data")
    with args.main_process_first(local=True, desc="encoding the data"):
        train_data = data.encode(raw.train, task, encoding, "data.train")
        evaluation = None
        if raw.evaluation is not None:
            written = replace(encoding, labels=raw.evaluation_labels)
            evaluation = data.encode(raw.evaluation, task, written, "data.evaluation")
    events.send("phase", text="loading the model")
    transformers.set_seed(args.seed)  # a new head is the same on every rank and in every run
    net = model.load(spec, task, config)
    embeddings.fit(net, encoder, choices)
    encoded = {"data.train": train_data, "data.evaluation": evaluation}
    data.check_lengths(spec, task, net, encoded, choices)
    parts = trainer.Parts(task, raw.labels, encoder, net, train_data, evaluation)
    return trainer.build(work, parts, args, events)


def _failed(error: Exception, step: int, work: Work) -> Result:
    where = _where(error)
    if isinstance(error, JobError | StorageError):
        return Result.of(error, step)
    if (told := _disk_full(error, Path(work.staging))) is not None:
        if step == 0 and work.attempt == 1 and work.job.spec.script is None:  # it never held what the job needs
            return Result("UserError", str(told))
        return Result.of(told, step)
    message = _last_line(error)
    if any(sign in str(error) for sign in _PEER_SIGNS):
        return Result("Infrastructure", f"another rank went away: {message}", step, where)
    if mend.note_of(str(work.resume_folder)) in getattr(error, "__notes__", ()):
        if work.resumed is None and not isinstance(error, MemoryError | OSError | torch.OutOfMemoryError):
            words = "cannot be loaded. Is it damaged, or of another model or strategy than this job's?"
            return Result("UserError", f"spec.resumeFrom: {work.job.spec.resume_from} {words} {message}", step, where)
        message = f"{work.resumed or work.job.spec.resume_from} cannot be loaded: {message}"
    # Before the first step nothing but the job's own data and code has been at work.
    return Result("UserError" if step == 0 else "Infrastructure", message, step, where)


def _last_line(error: Exception) -> str:
    notes = getattr(error, "__notes__", ())
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return [line.strip() for line in lines if line.strip() and line not in notes][-1]


def _disk_full(error: BaseException | None, staging: Path) -> DiskFullError | None:
    """That a disk is full, if an error or what it came from says so; where it does not say which, that of staging."""
    while error is not None:
        if isinstance(error, DiskFullError):
            return error
        if "No space left" in str(error) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            return full(staging)
        # PyTorch's zip writer says only that a write failed; the disk knows why.
        if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
            usage = os.statvfs(staging if staging.exists() else "/")
            return full(staging) if usage.f_bavail * usage.f_frsize < 64 * 1024 * 1024 else None
        error = error.__cause__ or error.__context__
    return None


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _quiet() -> None:
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.WARNING
    )
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
