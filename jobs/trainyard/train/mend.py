"""transformers' Trainer, mended where a resumed run would differ from the unbroken one or a save would be left out, and
where it saves and loads checkpoints: ours are laid out by train/saving and hold no pickle.

The methods are replaced on Trainer itself, so that classes derived from it, a user's or another library's, are
mended as well.
"""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import transformers.trainer as trainer_module
from accelerate.utils import other
from transformers import Trainer
from transformers.trainer_utils import SaveStrategy

from trainyard.errors import JobError
from trainyard.train import loss, prefetch, reshape, schedule, shards, tensorfile
from trainyard.train.callbacks import AgreementCallback, CheckpointCallback
from trainyard.train.goodput import Clock
from trainyard.train.saving import Saving, save_model


@functools.cache
def apply() -> None:
    """Mend Trainer in this process; more than once does no harm."""
    replace(Trainer._run_epoch, _run_epoch)
    replace(Trainer._save_rng_state, _save_rng_state)
    replace(Trainer._determine_best_metric, _determine_best_metric)
    replace(Trainer._save_checkpoint, _save_checkpoint)
    replace(Trainer.save_model, _save_model)
    replace(Trainer._prepare_for_training, _prepare_for_training)
    replace(Trainer._load_best_model, _load_best_model)
    replace(Trainer.get_batch_samples, _get_batch_samples)
    replace(Trainer._load_rng_state, _load_rng_state)
    replace(Trainer.compute_loss, loss.compute_loss)
    replace(Trainer.create_scheduler, _create_scheduler)
    replace(Trainer._load_optimizer_and_scheduler, schedule.load)
    for load in (Trainer._load_from_checkpoint, Trainer._load_optimizer_and_scheduler):
        replace(load, lambda trainer, original, *args, **kwargs: _noted(original, trainer, *args, **kwargs))
    prefetch.apply()
    replace(Trainer._finalize_training, _finalize_training)
    # Asked in each save, and neither changes: one reads a package's metadata each time, the other opens NVML.
    other.is_deepspeed_available = functools.cache(other.is_deepspeed_available)
    torch.cuda.is_available = functools.cache(torch.cuda.is_available)
    torch.load = _loading(torch.load)
    dcp.load = shards.loading(dcp.load)
    load_deepspeed = reshape.loading(trainer_module.deepspeed_load_checkpoint)
    trainer_module.deepspeed_load_checkpoint = functools.partial(_noted, load_deepspeed)


def replace(method: Callable[..., Any], around: Callable[..., Any]) -> None:
    """Put a function around a method of Trainer: called with the Trainer, the method and its arguments."""

    @functools.wraps(method)
    def wrapper(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        return around(trainer, method, *args, **kwargs)

    setattr(Trainer, method.__name__, wrapper)


def _run_epoch(trainer: Trainer, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    resumed_from = kwargs.get("resume_from_checkpoint")
    if trainer.state.global_step >= trainer.state.max_steps:
        # Resumed at its last step, with max_steps inside an epoch, Trainer would take one step too many.
        trainer.control.should_training_stop = True
        return
    if resumed_from is not None and trainer.state.global_step == trainer._initial_global_step:
        _load_loss(trainer, Path(resumed_from))
        _resume_data(trainer, str(resumed_from), in_epoch=kwargs["steps_trained_in_current_epoch"] > 0)
    original(trainer, *args, **kwargs)


def _get_batch_samples(trainer: Trainer, original: Callable[..., Any], *args: Any) -> Any:
    with _prefetch(trainer).fetching():
        return original(trainer, *args)


def _load_rng_state(trainer: Trainer, original: Callable[..., None], checkpoint: str | None) -> None:
    """Trainer loads the state after it has fetched the first batches: too late where these draw from it."""
    ahead = _prefetch(trainer)
    if ahead.has_loaded:
        ahead.has_loaded = False
    else:
        original(trainer, checkpoint)


def _prefetch(trainer: Any) -> prefetch.Prefetch:
    if not hasattr(trainer, "_trainyard_prefetch"):
        trainer._trainyard_prefetch = prefetch.Prefetch()
    ahead: prefetch.Prefetch = trainer._trainyard_prefetch
    return ahead


def _resume_data(trainer: Any, checkpoint: str, in_epoch: bool) -> None:
    state = _own_state(trainer, Path(checkpoint))
    tree = state.get("ahead") if state is not None else None
    if tree is not None:
        _prefetch(trainer).resume(tree, in_epoch, lambda: trainer._load_rng_state(checkpoint))


def _save_rng_state(trainer: Trainer, original: Callable[..., None], output_dir: str) -> None:
    """With the RNG state, keep the loss summed up between two logs, and the RNG states of data that is ahead."""
    original(trainer, output_dir)
    state = {
        "sum": trainer._tr_loss.detach().clone(),  # its number would have to wait for the device
        "total": trainer._total_loss_scalar,
        "since": trainer._globalstep_last_logged,
        "first": _counted_from(trainer),
        "ahead": _prefetch(trainer).tree(),
    }
    torch.save(state, str(Path(output_dir) / f"loss_{trainer.args.process_index}.pt"))


def _own_state(trainer: Any, folder: Path) -> dict[str, Any] | None:
    """What _save_rng_state() kept for this rank; None where it kept nothing, or for more ranks than there are."""
    own = folder / f"loss_{trainer.args.process_index}.pt"
    if not own.exists() or len(list(folder.glob("loss_*.pt"))) > trainer.args.world_size:
        return None
    return _load_state(own)


def _load_state(file: Path) -> dict[str, Any]:
    with trainer_module.safe_globals():  # a checkpoint that plain Trainer has written holds arrays of NumPy
        state: dict[str, Any] = torch.load(str(file), weights_only=True)
    return state


def _load_loss(trainer: Any, folder: Path) -> None:
    own = _own_state(trainer, folder)
    all_ranks = sorted(folder.glob("loss_*.pt"))
    states = [own] if own is not None else [_load_state(file) for file in all_ranks]
    if states:  # a checkpoint of plain Trainer has none: its first logged loss covers fewer steps
        # Of another number of ranks each takes the mean: the mean over ranks is what is logged.
        trainer._tr_loss += sum(state["sum"] for state in states) / len(states)
        trainer._total_loss_scalar = states[0]["total"]
        trainer._globalstep_last_logged = states[0]["since"]
        trainer._trainyard_counted_from = states[0].get("first", 0)


def _counted_from(trainer: Trainer) -> int:
    """The step from which on the losses are summed up: that of the first attempt."""
    known: int | None = getattr(trainer, "_trainyard_counted_from", None)
    return trainer._initial_global_step if known is None else known


def _finalize_training(trainer: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Trainer divides the loss of all steps by the number of those since it was resumed."""
    resumed_from = getattr(trainer, "_trainyard_resumed_from", None)
    if resumed_from is not None and trainer._trainyard_counted_from is None:
        _load_loss(trainer, Path(resumed_from))  # there was no step left to make
    steps = trainer.state.global_step - trainer._initial_global_step
    counted = trainer.state.global_step - _counted_from(trainer)
    share = max(steps, 0.001) / max(counted, 0.001)  # 0.001 is Trainer's
    trainer._total_loss_scalar *= share
    trainer._tr_loss = trainer._tr_loss * share
    return original(trainer, *args, **kwargs)


def _determine_best_metric(trainer: Trainer, original: Callable[..., bool], *args: Any, **kwargs: Any) -> bool:
    """With save_strategy: best Trainer forgets that somebody else wants a save at this step, one to stop with, say."""
    wanted = trainer.control.should_save and trainer.args.save_strategy == SaveStrategy.BEST
    try:
        return original(trainer, *args, **kwargs) or wanted
    except KeyError as error:
        raise JobError(str(error.args[0])) from error


def _save_checkpoint(trainer: Trainer, original: Callable[..., None], *args: Any) -> None:
    saving = saving_of(trainer)
    if saving is None:
        original(trainer, *args)
    else:
        _put_last(trainer)
        saving.save(trainer, original, *args)


def _put_last(trainer: Trainer) -> None:
    """Ours completes a checkpoint when on_save is called: after callbacks that a script has added since."""
    handler = trainer.callback_handler
    ours = [each for each in handler.callbacks if isinstance(each, CheckpointCallback)]
    handler.callbacks = [each for each in handler.callbacks if each not in ours] + ours


def _save_model(trainer: Trainer, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    saving = saving_of(trainer)
    if saving is None:
        original(trainer, *args, **kwargs)
    else:
        save_model(saving, trainer, original, *args, **kwargs)


def _prepare_for_training(
    trainer: Any,
    original: Callable[..., Any],
    max_steps: int,
    train_dataloader: Any,
    resume_from_checkpoint: str | None,
) -> Any:
    """DeepSpeed's optimizer steps inside of backward, past the callback that is called before a step."""
    begun = time.monotonic()
    if trainer.model_wrapped is trainer.model:
        # An evaluation before training marks the bare model as prepared. accelerate would then not put DDP around it,
        # and each rank would train on its own.
        vars(trainer.model).pop("_is_accelerate_prepared", None)
    trainer._trainyard_resumed_from = resume_from_checkpoint
    trainer._trainyard_counted_from = None
    trainer._trainyard_values = None
    trainer._trainyard_prefetch = prefetch.Prefetch()
    prepared = original(trainer, max_steps, train_dataloader, resume_from_checkpoint)
    if resume_from_checkpoint is not None and trainer._trainyard_values is not None:
        _say_changes(trainer, schedule.apply(trainer, trainer._trainyard_values))
    if trainer.state.global_step:  # the state of the checkpoint to resume from is there already
        Clock.restore += time.monotonic() - begun
    saving = saving_of(trainer)
    if saving is not None:
        saving.prepare(trainer)
        if trainer.is_deepspeed_enabled:
            _release_before(trainer.model_wrapped, saving)
    return prepared


def _create_scheduler(trainer: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    created = original(trainer, *args, **kwargs)
    # DeepSpeed's configuration may bring the optimizer: then the first call has a placeholder, which is no optimizer.
    if isinstance(trainer.optimizer, torch.optim.Optimizer):
        trainer._trainyard_values = schedule.of_manifest(trainer)
    return created


def _say_changes(trainer: Trainer, changes: list[str]) -> None:
    saving = saving_of(trainer)
    if changes and saving is not None:
        text = f"resumed at step {trainer.state.global_step} with the present arguments: {'; '.join(changes)}"
        saving.events.send("note", text=text)


def _release_before(engine: Any, saving: Saving) -> None:
    step = engine.step

    def released(*args: Any, **kwargs: Any) -> Any:
        if engine.is_gradient_accumulation_boundary():
            saving.release()
        return step(*args, **kwargs)

    engine.step = released


def _load_best_model(trainer: Trainer, original: Callable[..., None]) -> None:
    callbacks = trainer.callback_handler.callbacks
    if any(isinstance(each, AgreementCallback) and each.stopped for each in callbacks):
        return  # training goes on later, and with the last weights
    saving = saving_of(trainer)
    if saving is not None:
        saving.wait()
        trainer.accelerator.wait_for_everyone()  # rank 0's node has committed: every node finds the same
    if saving is None or saving.bring_best(trainer):
        original(trainer)


def saving_of(trainer: Trainer) -> Saving | None:
    """How a Trainer of ours saves; None for one that we know nothing of."""
    found = (each.saving for each in trainer.callback_handler.callbacks if isinstance(each, CheckpointCallback))
    return next(found, None)


_LOADING = "__trainyard_loading__"
"""Attribute of an exception: the folder of the checkpoint that was being loaded when it was raised."""


def loading(error: BaseException) -> str | None:
    """The folder of the checkpoint that was being loaded when an exception was raised; None for any other exception."""
    folder: str | None = getattr(error, _LOADING, None)
    return folder


def _noted(load: Callable[..., Any], owner: Any, *args: Any, **kwargs: Any) -> Any:
    """Load what the first argument names. An exception carries that name, which its own words may not hold."""
    try:
        return load(owner, *args, **kwargs)
    except Exception as error:
        folder = str(next(iter((*args, *kwargs.values())), None))
        error.add_note(f"while {folder} was loaded")
        setattr(error, _LOADING, folder)
        raise


def _loading(original: Callable[..., Any]) -> Callable[..., Any]:
    """torch.load that also reads what was saved without a pickle."""

    @functools.wraps(original)
    def load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str | os.PathLike) and tensorfile.is_tree(file):
            return tensorfile.load(file)
        return original(file, map_location, *args, **kwargs)

    return load
