"""Saving a checkpoint without stopping training.

Trainer says what a checkpoint holds: its own `_save_checkpoint` runs, a user's override around it too, but what it
hands to torch.save is laid out in a slot's buffers instead of being pickled, and copied there while training goes on.
Small things, and those that change with every forward pass (buffers of modules, random generators), are copied at once.
When the last piece is in its place, before the next optimizer step, a ticket is left for the node's uploader.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from trainyard.checkpoint import doorbell
from trainyard.checkpoint.staging import Commit, Receipt, Run, StagedFile, Ticket, Tickets
from trainyard.checkpoint.transfer import folder_files
from trainyard.errors import JobError, StorageError, StorageFullError
from trainyard.storage.layout import CheckpointId
from trainyard.train import shards, tensorfile
from trainyard.train.cadence import Costs
from trainyard.train.capture import Capture
from trainyard.train.copier import Copier
from trainyard.train.events import Events
from trainyard.train.leftovers import Leftovers
from trainyard.train.slots import Slot, Slots


@dataclass(frozen=True)
class Seat:
    """Where this process stands in the group."""

    rank: int
    world_size: int
    local_size: int
    node: int
    nodes: int

    @classmethod
    def here(cls) -> "Seat":
        """By torchrun's variables."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
        rank, size, local_size, node, nodes = (int(os.environ.get(name, "0")) for name in names)
        return cls(rank, size or 1, local_size or 1, node, nodes or 1)


@dataclass(frozen=True)
class Config:
    """What does not change while an attempt lasts."""

    attempt: int
    run: Run
    seat: Seat
    bell: Path
    tickets: Tickets
    static: Path
    """Folder for what is the same in every checkpoint."""
    owned: bool = True
    """Whether output_dir is ours to clean up; a script's is its own."""
    chosen: bool = False
    """Whether how often to save is the plan's choice and not the user's: what that leaves out is no news."""


@dataclass
class Totals:
    """What saving has cost this attempt."""

    blocked: float = 0.0
    """Seconds that training stood still."""
    saves: int = 0
    skipped: int = 0
    waited: int = 0


@dataclass(frozen=True)
class _Pending:
    """A checkpoint whose content is known, before it is on its way."""

    capture: Capture
    started: float
    stale: tuple[Path, ...]
    """Folders that Trainer has written at earlier saves, and nobody needs."""


@dataclass
class Saving:
    """Saves the checkpoints of one attempt, as one of its ranks."""

    config: Config
    slots: Slots
    events: Events
    commit: Callable[[TrainerState], Commit] | None
    """What rank 0 adds to a ticket; None on other ranks."""
    bring_best: Callable[[Trainer], bool]
    """Has the best checkpoint where Trainer loads it; False when there is none."""
    may_skip: Callable[[], bool] = lambda: False
    """Whether the ranks have agreed that the save at this step may be left out: some of them has no free slot."""
    requested: Callable[[], bool] = lambda: False
    """Whether somebody asked for the save at this step."""
    alive: Callable[[], None] = lambda: None
    """Called while a slot is waited for: an outage may last, and is no hang."""
    goodput: Callable[[], dict[str, float]] = dict
    """Where the attempt's time has gone."""
    totals: Totals = field(default_factory=Totals)
    static: list[StagedFile] = field(default_factory=list)
    capture: Capture | None = None
    """The save under way in Trainer's `_save_checkpoint`."""

    def __post_init__(self) -> None:
        self._copier = Copier()
        self._told_skips = 0
        self._unsettled: list[CheckpointId] = []
        self._pending: _Pending | None = None
        self._left: Leftovers | None = None
        """On rank 0: the other ranks write no file of their own into a checkpoint."""
        self.foreign = False
        """Whether a class of the user's, or an adapter, has its own way to save a model."""
        self._skipped = False
        self._voided = False
        """Whether something else than the optimizer has changed the weights while they were copied."""
        self.commit_seconds = 0.0

    def prepare(self, trainer: Trainer) -> None:
        """Before the first save: look at what was left here, and write once what is the same in every checkpoint."""
        if self.commit is not None:
            self._left = Leftovers(_output(trainer))
        sharded = trainer.accelerator.state.fsdp_plugin.state_dict_config if trainer.is_fsdp_enabled else None
        if sharded is not None:  # accelerate would copy every rank's shard to the host before we do
            sharded.offload_to_cpu = False
        own, model = type(trainer), _unwrapped(trainer)
        overridden = own.save_model is not Trainer.save_model or own._save is not Trainer._save
        self.foreign = overridden or not isinstance(model, PreTrainedModel)
        if not trainer.args.should_save or self.foreign:
            return
        folder = self.config.static
        model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
        model.config.save_pretrained(folder)
        if model.can_generate() and model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        processor = trainer.processing_class or getattr(trainer.data_collator, "tokenizer", None)
        if processor is not None:
            processor.save_pretrained(folder)
        self.static = folder_files(folder)

    def save(self, trainer: Trainer, original: Callable[..., None], *args: Any) -> None:
        """Take what the checkpoint of this step holds, with Trainer's own method. complete() makes it one."""
        begun, started = time.monotonic(), time.time()
        forced = trainer.control.should_training_stop or trainer.state.global_step >= trainer.state.max_steps
        self._skipped = not forced and self.may_skip()
        if self._skipped:
            self._skip(trainer.state)
            return
        self._copier.settle()
        slot = self._slot(forced)
        folder = _output(trainer) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"
        if self._left is not None:
            self._left.remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        volatile = {buffer.untyped_storage().data_ptr() for buffer in trainer.model.buffers()}
        self.capture = Capture(folder, slot, self.slots, volatile)
        try:
            with self.capture.of_torch_save(), shards.of_dcp_save(self.capture.put_tree, self.capture.inside):
                original(trainer, *args)
            self._pending = _Pending(self.capture, started, self._stale(trainer, folder))
        finally:
            self.capture = None
        self.totals.blocked += time.monotonic() - begun

    def complete(self, state: TrainerState) -> None:
        """After everybody has added to a checkpoint what belongs in it: let the copies begin. Raises JobError."""
        pending, self._pending = self._pending, None
        if self._skipped:
            return
        if pending is None:
            raise JobError(
                "the Trainer's class has a _save_checkpoint of its own that does not call Trainer's: nothing was "
                "saved. Call super()._save_checkpoint(model, trial) in it"
            )
        begun = time.monotonic()
        ticket = self._ticket(state, pending)
        pending.capture.slot.holds = ticket.id
        self._unsettled.append(ticket.id)
        self._copier.start(pending.capture.later, lambda intact: self._staged(ticket, pending.stale, intact))
        if self._voided:  # it would do so again: training waits for the copies
            self._copier.release()
        self._tell_room()
        self.totals.saves += 1
        self.totals.blocked += time.monotonic() - begun

    def _tell_room(self) -> None:
        folder, fallback = self.slots.folder, self.slots.fallback
        if self.slots.moved:
            text = f"memory for staging is full: checkpoints are staged on disk from here on, in {folder}"
            self.events.send("note", text=text)
        if self.slots.cramped:
            places = " nor in ".join(dict.fromkeys((str(folder), str(fallback))))
            text = f"no room in {places} to stage a checkpoint while those before are uploaded"
            self.events.send("note", text=f"{text}: a save that is due waits, or is left out (checkpoint.backlog)")
        self.slots.moved = self.slots.cramped = False

    def release(self) -> None:
        """Before the optimizer changes what is being copied."""
        begun = time.monotonic()
        self._copier.release()
        self.totals.blocked += time.monotonic() - begun

    def check(self) -> None:
        """Look at what became of the saves under way. Raises StorageError for what the uploader could not mend."""
        for identity in list(self._unsettled):
            if (receipt := self.config.tickets.receipt(identity)) is not None:
                self._unsettled.remove(identity)
                self.commit_seconds = receipt.seconds or self.commit_seconds
                _raise_failure(receipt)

    def _last_settled(self) -> None:
        """Raises StorageError when the newest checkpoint was given up: what comes next would count on it."""
        newest = max((slot.holds for slot in self.slots.slots if slot.holds is not None), default=None)
        receipt = self.config.tickets.receipt(newest) if newest is not None else None
        if receipt is not None and receipt.state == "Abandoned":
            raise StorageError(f"checkpoint {newest} is not committed: {receipt.message}")

    @property
    def costs(self) -> Costs:
        """What a save has cost."""
        return Costs(self.totals.blocked / max(1, self.totals.saves), self.commit_seconds)

    def wait(self) -> None:
        """Return when everything that was saved is committed. Raises StorageError."""
        self._copier.settle()
        for identity in self.slots.busy():
            _raise_failure(doorbell.settled(self.config.bell, self.config.tickets, identity, last=True))
        self.check()
        self._last_settled()

    def _skip(self, state: TrainerState) -> None:
        self.totals.skipped += 1
        is_news = self.config.seat.rank == 0 and not self.config.chosen
        if is_news and self.totals.skipped >= 2 * self._told_skips:
            self._told_skips = self.totals.skipped
            text = f"saves left out so far: {self.totals.skipped} (step {state.global_step}), those before are still"
            fix = "Save less often (save_steps, checkpoint.every), or set checkpoint.backlog: Wait"
            self.events.send("note", text=f"{text} being uploaded. {fix}")

    def _slot(self, last: bool) -> Slot:
        slot = self.slots.take()
        while slot is None:
            self.totals.waited += 1
            if busy := self.slots.busy():
                _raise_failure(doorbell.settled(self.config.bell, self.config.tickets, busy[0], last, waits=self.alive))
            self.check()
            slot = self.slots.take()
        return slot

    def _ticket(self, state: TrainerState, pending: "_Pending") -> Ticket:
        capture, commit = pending.capture, None
        if self.commit is not None:
            commit = replace(self.commit(state), goodput=self.goodput(), requested=self.requested())
            capture.take_written()
        taken = {file.path for file in capture.files}
        files = [*capture.files, *(file for file in self.static if file.path not in taken)]
        seat = self.config.seat
        return Ticket(
            state.global_step, self.config.attempt, seat.rank, seat.world_size, seat.local_size, seat.node, seat.nodes,
            self.config.run, tuple(files), pending.started, commit,
        )  # fmt: skip

    def _staged(self, ticket: Ticket, stale: tuple[Path, ...], intact: bool) -> None:
        """In the copier's thread, when the last byte is in its place."""
        void = "" if intact else "weights changed outside of the optimizer, while they were copied"
        self._voided = self._voided or not intact
        self.config.tickets.leave(replace(ticket, void=void))
        doorbell.ring(self.config.bell)
        self.slots.withdraw()
        for folder in stale:
            shutil.rmtree(folder, ignore_errors=True)

    def _stale(self, trainer: Trainer, newest: Path) -> tuple[Path, ...]:
        if not self.config.owned or not trainer.args.should_save:
            return ()
        best = trainer.state.best_model_checkpoint
        keep = {newest.name, Path(best).name if best else newest.name}
        return tuple(each for each in newest.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if each.name not in keep)


def _output(trainer: Trainer) -> Path:
    return Path(os.path.abspath(str(trainer.args.output_dir)))  # noqa: PTH100 - links are not to be followed


def save_model(saving: Saving, trainer: Trainer, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Trainer.save_model inside of a save: the weights go into the slot, and what never changes is there already."""
    capture = saving.capture
    if capture is None or saving.foreign:
        original(trainer, *args, **kwargs)
    elif trainer.args.should_save and not _in_parts(trainer):
        try:
            capture.put_weights(_weights(_unwrapped(trainer)))
        except tensorfile.UnsupportedError:
            original(trainer, *args, **kwargs)


def _unwrapped(trainer: Trainer) -> Any:
    """The model without what DDP, DeepSpeed and torch.compile have put around it."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    return {name: tensor for name, tensor in model.state_dict().items() if name not in ignored}


def _in_parts(trainer: Trainer) -> bool:
    """Whether no rank has the whole weights: gathering them would stop training, and resuming needs the parts only."""
    if trainer.is_deepspeed_enabled:
        return bool(trainer.accelerator.deepspeed_config["zero_optimization"]["stage"] == 3)
    return bool(trainer.is_fsdp_enabled)


def _raise_failure(receipt: Receipt) -> None:
    if receipt.state == "Failed":
        raise (StorageFullError if receipt.full else StorageError)(receipt.message)
