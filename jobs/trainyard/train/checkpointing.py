"""How the checkpoints of an attempt are saved: from what the job says to the callbacks that do it."""

from collections.abc import Callable
from pathlib import Path

from transformers import TrainerState, TrainingArguments

from trainyard.checkpoint.retain import Retention
from trainyard.checkpoint.staging import Commit, Tickets
from trainyard.train import best
from trainyard.train.arguments import global_batch_size, metric_for_best, metrics_file, versions
from trainyard.train.cadence import Cadence
from trainyard.train.callbacks import AgreementCallback, CheckpointCallback, metrics_at
from trainyard.train.events import Events
from trainyard.train.saving import Config, Saving, Seat
from trainyard.train.slots import Slots
from trainyard.train.work import Work


def callbacks(work: Work, args: TrainingArguments, events: Events) -> tuple[AgreementCallback, CheckpointCallback]:
    """What the ranks agree on, and what saves; in this order they belong into a Trainer."""
    saving = _saving(work, args, events)
    agreement = AgreementCallback(lambda: not saving.slots.free(), _due(work, saving))
    skips = work.job.spec.checkpoint.backlog == "Skip" and not args.load_best_model_at_end
    saving.may_skip = lambda: skips and agreement.busy and not agreement.urgent
    saving.requested = lambda: agreement.urgent
    return agreement, CheckpointCallback(saving, agreement.committed)


def _saving(work: Work, args: TrainingArguments, events: Events) -> Saving:
    seat, tickets, staging = Seat.here(), Tickets(Path(work.tickets)), Path(work.staging)
    config = Config(
        attempt=work.attempt,
        run=work.run,
        seat=seat,
        bell=Path(work.bell),
        tickets=tickets,
        static=staging / "static",
        owned=work.job.spec.script is None,
        chosen=_is_chosen(work),
    )
    buffers = Path(work.buffers)
    on_disk = buffers if buffers.is_relative_to(staging) else staging / "buffers"
    return Saving(
        config,
        Slots(buffers, on_disk, tickets, seat.rank, pinned=args.device.type == "cuda"),
        events,
        commit=_commits(work, args) if seat.rank == 0 else None,
        bring_best=lambda trainer: best.at_end(work, trainer, events),
    )


def _is_chosen(work: Work) -> bool:
    """Whether the plan chose how often to save: neither the manifest nor a script says it."""
    spec = work.job.spec
    named = {"save_steps", "save_strategy"} & spec.training_arguments.keys()
    return spec.script is None and spec.checkpoint.every is None and not named


def _commits(work: Work, args: TrainingArguments) -> Callable[[TrainerState], Commit]:
    metric, greater = metric_for_best(args)
    wanted = work.job.spec.checkpoint
    keep_best = max(wanted.keep_best, int(args.load_best_model_at_end))
    retention = Retention(work.keep_last, keep_best, metric, greater, wanted.keep_every)
    resumed = (str(work.resumed),) if work.resumed else ()
    known, file = versions(), str(metrics_file(work))

    def commit(state: TrainerState) -> Commit:
        # A script may change its arguments until it trains.
        size = global_batch_size(args)
        return Commit(work.strategy, size, known, metrics_at(state), retention, resumed, file)

    return commit


def _due(work: Work, saving: Saving) -> Callable[[], bool]:
    """Whether it is time for a save: rank 0 tells, and the others follow."""
    if work.every is None or saving.config.seat.rank != 0:
        return lambda: False
    workers = work.job.spec.workers.count
    return Cadence(work.every, workers, lambda: saving.costs, lambda text: saving.events.send("note", text=text)).due
