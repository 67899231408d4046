"""Stage 4: the Trainer, with its strategy, its arguments and its callbacks."""

import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
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
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from trainyard.checkpoint.catalogue import committed, list_checkpoints, read_manifest, set_aside
from trainyard.checkpoint.retain import Retention
from trainyard.checkpoint.saver import Place, Saver
from trainyard.checkpoint.transfer import CorruptCheckpoint, download
from trainyard.errors import JobError
from trainyard.storage.layout import CheckpointId
from trainyard.train import code, heartbeat, mend
from trainyard.train.arguments import global_batch_size, metric_for_best, versions
from trainyard.train.callbacks import CheckpointCallback, HeartbeatCallback, ProgressCallback, StopCallback
from trainyard.train.data import tokens_per_sample
from trainyard.train.events import Events
from trainyard.train.heartbeat import Heart
from trainyard.train.metrics import MetricsLog
from trainyard.train.tasks.base import Labels, Task
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


def callbacks(
    work: Work, args: TrainingArguments, events: Events, tokens: float | None = None
) -> tuple[list[TrainerCallback], StopCallback]:
    """What goes along with every Trainer: stopping when asked, progress, checkpoints; and the first of them."""
    stop = StopCallback()
    made: list[TrainerCallback] = [stop]
    if args.process_index == 0:
        log = MetricsLog(work.store, work.resumed.step if work.resumed else 0)
        made.append(ProgressCallback(events, log, global_batch_size(args), tokens))
    told = events if args.process_index == 0 else Events(None)
    made.append(CheckpointCallback(_saver(work, args), told, owned=work.job.spec.script is None))
    made.append(HeartbeatCallback(Heart(heartbeat.file(Path(work.staging), args.process_index))))
    return made, stop


def build(work: Work, parts: Parts, args: TrainingArguments, events: Events) -> tuple[Trainer, StopCallback]:
    """The Trainer of a job, and the callback that knows whether it was asked to stop. Raises JobError."""
    along, stop = callbacks(work, args, events, tokens_per_sample(parts.train))
    if not hasattr(parts.model, "accepts_loss_kwargs"):
        parts.model.accepts_loss_kwargs = _divides_its_loss(parts.model, parts.labels)
    mend.apply()
    trainer = code.trainer_class(work.job.spec)(
        model=parts.model,
        args=args,
        train_dataset=parts.train,
        eval_dataset=parts.evaluation,
        processing_class=parts.processor,
        data_collator=parts.task.collator(parts.processor, parts.model),
        compute_metrics=parts.task.metrics(parts.labels),
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
            _bring_best(work, Path(work.resume_folder), events)
    trainer.train(resume_from_checkpoint=work.resume_folder)


def _bring_best(work: Work, folder: Path, events: Events) -> None:
    """Point the resumed state to the best checkpoint where this attempt has it.

    Trainer remembers the best checkpoint by a path, which was of the attempt before, and of another disk. One that
    is not whole any more is set aside, and what is the best is found out anew.
    """
    file = folder / TRAINER_STATE_NAME
    state = json.loads(file.read_text(encoding="utf-8"))
    if not state.get("best_model_checkpoint"):
        return
    step = int(Path(state["best_model_checkpoint"]).name.rpartition("-")[2])
    best = folder
    if work.resumed is not None and step != work.resumed.step:
        best = Path(work.staging) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        source = _checkpoint_of(work, step)
        if source is not None and not best.exists():
            best.parent.mkdir(parents=True, exist_ok=True)
            try:
                download(work.store, read_manifest(work.store, source), source.folder, best)
            except (CorruptCheckpoint, ValueError) as error:
                set_aside(work.store, source, str(error))
                events.send("note", text=f"the best checkpoint, {source}, is corrupt and was set aside ({error})")
    known = best.exists()
    state["best_model_checkpoint"] = str(best) if known else None
    if not known:
        state["best_metric"] = state["best_global_step"] = None
    file.write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")


def _checkpoint_of(work: Work, step: int) -> CheckpointId | None:
    found = committed(list_checkpoints(work.store))
    return next((identity for identity in found if identity.step == step), None)


def _saver(work: Work, args: TrainingArguments) -> Saver:
    metric, greater = metric_for_best(args)
    keep_best = max(work.job.spec.checkpoint.keep_best, int(args.load_best_model_at_end))
    return Saver(
        store=work.store,
        attempt=work.attempt,
        world_size=args.world_size,
        strategy=work.strategy,
        global_batch_size=global_batch_size(args),
        versions=versions(),
        retention=Retention(work.keep_last, keep_best, metric, greater),
        place=Place(args.process_index, args.local_process_index, _gather),
        in_use=[work.resumed] if work.resumed else [],
    )


def _gather(mine: list[dict[str, object]]) -> list[list[dict[str, object]]]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    collected: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(collected, mine)
    return collected


def _divides_its_loss(model: PreTrainedModel, labels: Labels) -> bool:
    """Whether the model's loss is divided by the `num_items_in_batch` that Trainer hands it.

    Trainer takes a forward with **kwargs for one that does, and then multiplies the loss by the number of
    processes and leaves out the division by gradient_accumulation_steps. Models such as
    BertForSequenceClassification take the argument and ignore it, so that their loss and their gradients would
    be N times too large (measured: 3.2 instead of 1.6 with two processes).
    """
    if labels.problem_type in ("regression", "multi_label_classification"):
        return False
    return "self.loss_function(" in inspect.getsource(inspect.unwrap(type(model).forward))
