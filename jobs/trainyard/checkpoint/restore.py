"""A checkpoint back on a node: only what its ranks need, from what is still staged there where that is the same."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from trainyard.checkpoint.catalogue import read_manifest
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.transfer import download, needed, restored_path
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store

WORLD_SIZE = "world_size"
"""File beside a restored checkpoint's: how many processes have written it, of which a node may have a part only."""
_STATE = "trainer_state.json"
_OPTIMIZER = "optimizer"
"""What the paths of Trainer's and FSDP2's files begin with: two thirds of a checkpoint."""


@dataclass(frozen=True)
class Seats:
    """Who restores: some ranks, those of a node, of so many."""

    ranks: Collection[int]
    world_size: int


def bring(
    store: Store, tickets: Tickets, identity: CheckpointId, folder: Path, seats: Seats, to_resume: bool = True
) -> Manifest:
    """Bring what some ranks need of a checkpoint into a folder, verified; all of it, when it is of another number.

    Without the optimizer's state where it is not to resume from (DeepSpeed loads its own anyway). Raises
    CorruptCheckpointError, or ValueError when its manifest is torn.
    """
    manifest, receipt = read_manifest(store, identity), tickets.receipt(identity)
    staged = receipt.sources if receipt is not None else {}
    wanted = needed(manifest, seats.ranks) if manifest.world_size == seats.world_size else manifest.files
    if not to_resume:
        wanted = [entry for entry in wanted if not entry.path.startswith(_OPTIMIZER)]
    download(store, manifest, identity.folder, folder, wanted, staged)
    (folder / WORLD_SIZE).write_text(str(manifest.world_size), encoding="ascii")
    return manifest


def adopt(source: Path, folder: Path) -> None:
    """Have a checkpoint of Trainer in a folder: links to its files, and a copy of the state that is changed.

    One of ours has the names that Trainer looks for, too.
    """
    for file in source.rglob("*"):
        target = folder / restored_path(str(file.relative_to(source)))
        if file.is_dir() or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.name == _STATE:
            shutil.copyfile(file, target)
        else:
            target.symlink_to(file.resolve())
