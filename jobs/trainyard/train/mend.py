"""transformers' Trainer, mended in two places where a resumed run would differ from the unbroken one.

The methods are replaced on Trainer itself, so that classes derived from it, a user's or another library's, are
mended as well.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer


@functools.cache
def apply() -> None:
    """Mend Trainer in this process; more than once does no harm."""
    replace(Trainer._run_epoch, _run_epoch)
    replace(Trainer._save_rng_state, _save_rng_state)


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
    original(trainer, *args, **kwargs)


def _save_rng_state(trainer: Trainer, original: Callable[..., None], output_dir: str) -> None:
    """Beside the RNG state, keep what a checkpoint between two logs has summed up of the loss."""
    original(trainer, output_dir)
    state = {
        "sum": trainer._tr_loss.item(),
        "total": trainer._total_loss_scalar,
        "since": trainer._globalstep_last_logged,
    }
    (Path(output_dir) / f"loss_{trainer.args.process_index}.json").write_text(json.dumps(state), encoding="utf-8")


def _load_loss(trainer: Trainer, folder: Path) -> None:
    file = folder / f"loss_{trainer.args.process_index}.json"
    if file.exists():  # a checkpoint of plain Trainer has none: its first logged loss covers fewer steps
        state = json.loads(file.read_text(encoding="utf-8"))
        trainer._tr_loss += state["sum"]
        trainer._total_loss_scalar = state["total"]
        trainer._globalstep_last_logged = state["since"]
