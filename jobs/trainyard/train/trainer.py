"""Stage 4: the Trainer, with its strategy, its arguments and its callbacks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from trainyard.checkpoint.doorbell import Metrics
from trainyard.errors import JobError
from trainyard.plan.labels import Labels
from trainyard.train import best, checkpointing, code, heartbeat, mend, trackers
from trainyard.train.arguments import global_batch_size, metrics_file
from trainyard.train.callbacks import (
    AgreementCallback,
    HeartbeatCallback,
)
from trainyard.train.data import tokens_per_sample
from trainyard.train.events import Events
from trainyard.train.goodput import GoodputCallback
from trainyard.train.heartbeat import Heart
from trainyard.train.metrics import MetricsLog
from trainyard.train.predictions import over_batches
from trainyard.train.progress import ProgressCallback
from trainyard.train.tasks.base import Task
from trainyard.train.tasks.sequence import ids_only
from trainyard.train.work import Work


@dataclass(frozen=True)
class Parts:
    """What the stages before have made."""

    task: Task
    labels: Labels
    processor: Any
    model: PreTrainedModel
    train: Dataset
    evaluation: Dataset | None


class DivergenceCallback(TrainerCallback):
    """A loss that is not a number never comes back: fail at once instead of burning the cluster."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Raises JobError on a loss of nan or inf."""
        loss = (logs or {}).get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            raise JobError(
                f"the loss is {loss} at step {state.global_step}: training has diverged. Lower learning_rate, add "
                "warmup_steps, set max_grad_norm, or use bf16 instead of fp16; then run again"
            )


def metrics_log(work: Work, args: TrainingArguments) -> MetricsLog | None:
    """The attempt's metrics.jsonl, begun with what the attempts before have left; None on ranks that keep none."""
    if args.process_index:
        return None
    kept = Metrics(metrics_file(work), work.run, work.attempt)
    return MetricsLog(work.store, kept, Path(work.bell), _first_step(work))


def _first_step(work: Work) -> int:
    """The step that the attempt goes on from, also where its checkpoint is one of plain Trainer; 0 without one."""
    if work.resumed is not None:
        return work.resumed.step
    if work.resume_folder is None:
        return 0
    return int(TrainerState.load_from_json(str(Path(work.resume_folder, TRAINER_STATE_NAME))).global_step)


def callbacks(
    work: Work, args: TrainingArguments, events: Events, log: MetricsLog | None, tokens: float | None = None
) -> tuple[list[TrainerCallback], AgreementCallback]:
    """What goes along with every Trainer: stopping when asked, checkpoints, progress; and the first of them."""
    stop, checkpoints = checkpointing.callbacks(work, args, events)
    made: list[TrainerCallback] = [stop]
    if log is not None:
        goodput = GoodputCallback(checkpoints.saving, log, work.attempt)
        checkpoints.saving.goodput = goodput.split
        made += [goodput, ProgressCallback(events, log, global_batch_size(args), tokens, goodput.share)]
    heart = Heart.mine or Heart(heartbeat.file(Path(work.staging), args.process_index))
    checkpoints.saving.alive = heart.again
    made.append(HeartbeatCallback(heart, lambda: stop.busy))
    return [*made, checkpoints], stop  # the last: others may add to what is saved


def build(work: Work, parts: Parts, args: TrainingArguments, events: Events) -> tuple[Trainer, AgreementCallback]:
    """The Trainer of a job, and the callback that knows whether it was asked to stop. Raises JobError."""
    along, stop = callbacks(work, args, events, metrics_log(work, args), tokens_per_sample(parts.train))
    mend.apply()
    trackers.install(work)
    trainer = code.trainer_class(work.job.spec)(
        model=parts.model,
        args=args,
        train_dataset=parts.train,
        eval_dataset=parts.evaluation,
        processing_class=parts.processor,
        data_collator=parts.task.collator(parts.processor, parts.model),
        compute_metrics=over_batches(parts.task.metrics(parts.labels)),
        preprocess_logits_for_metrics=ids_only if parts.task.predicts_ids else None,
        callbacks=[*along, DivergenceCallback()],
    )
    if not isinstance(trainer, Trainer) or stop not in trainer.callback_handler.callbacks:
        raise JobError(
            "spec.trainer.entrypoint: what it returns is no Trainer with the callbacks that it was given; "
            "pass its keyword arguments on, such as Trainer(**kwargs)"
        )
    trainer.remove_callback(PrinterCallback)  # the same numbers are told, in the log and in metrics.jsonl
    return trainer, stop


def train(work: Work, trainer: Trainer, events: Events) -> None:
    """Train to the end, from the checkpoint to resume from if there is one."""
    if work.resume_folder is None:
        trainer.train()
        return
    with trainer.args.main_process_first(local=True):
        if trainer.args.local_process_index == 0:
            best.at_resume(work, Path(work.resume_folder), events)
    trainer.train(resume_from_checkpoint=work.resume_folder)
