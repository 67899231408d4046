"""The best checkpoint, where load_best_model_at_end looks for it.

Trainer remembers it by a path on the disk that it was saved to. Ours lies in storage: it is brought, verified, to a
folder of this attempt when a run is resumed, and when it is to be loaded.
"""

import json
from pathlib import Path

from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from trainyard.checkpoint import restore
from trainyard.checkpoint.catalogue import committed, list_checkpoints, set_aside
from trainyard.checkpoint.restore import Seats
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.transfer import CorruptCheckpointError
from trainyard.errors import NotFoundError
from trainyard.storage.layout import CheckpointId
from trainyard.train.events import Events
from trainyard.train.saving import Seat
from trainyard.train.work import Work


def at_resume(work: Work, folder: Path, events: Events) -> None:
    """Point the state that is resumed from to the best checkpoint where this attempt has it.

    One that is not whole any more is set aside, and what is the best is found out anew.
    """
    file = folder / TRAINER_STATE_NAME
    state = json.loads(file.read_text(encoding="utf-8"))
    if not state.get("best_model_checkpoint"):
        return
    best: Path | None = folder
    step = _step(state["best_model_checkpoint"])
    if step != state["global_step"]:
        best = _bring(work, step, events)
    state["best_model_checkpoint"] = str(best) if best is not None else None
    if best is None:
        state["best_metric"] = state["best_global_step"] = None
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
    partial.replace(file)


def at_end(work: Work, trainer: Trainer, events: Events) -> bool:
    """Have the best checkpoint here before Trainer loads it; False when there is none that is whole. A collective."""
    known = Path(str(trainer.state.best_model_checkpoint))
    if known.parent == _folder(work) or known == Path(work.resume_folder or ""):
        return True
    with trainer.args.main_process_first(local=True):
        best = _bring(work, _step(str(known)), events)
    trainer.state.best_model_checkpoint = str(best) if best is not None else None
    return best is not None


def _bring(work: Work, step: int, events: Events) -> Path | None:
    target = _folder(work) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    try:
        source = _checkpoint_of(work, step)
        restore.bring(work.store, Tickets(Path(work.tickets)), source, target, _seats_here(), to_resume=False)
    except NotFoundError:
        events.send("note", text=f"the best checkpoint, of step {step}, is not in storage any more: going on without")
        return None
    except (CorruptCheckpointError, ValueError) as error:
        set_aside(work.store, source, str(error))
        events.send("note", text=f"the best checkpoint, {source}, is corrupt and was set aside ({error})")
        return None
    return target


def _checkpoint_of(work: Work, step: int) -> CheckpointId:
    for identity in committed(list_checkpoints(work.store)):
        if identity.step == step:
            return identity
    raise NotFoundError(f"{work.store.url()} has no checkpoint of step {step}")


def _seats_here() -> Seats:
    """The ranks of this node: they follow each other."""
    seat = Seat.here()
    first = seat.rank - seat.rank % seat.local_size
    return Seats(range(first, first + seat.local_size), seat.world_size)


def _step(path: str) -> int:
    return int(Path(path).name.rpartition("-")[2])


def _folder(work: Work) -> Path:
    return Path(work.staging) / "best"
