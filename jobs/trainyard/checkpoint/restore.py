"""A checkpoint back on a node: only what its ranks need, from what is still staged there where that is the same."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from trainyard.checkpoint.catalogue import manifest_in, read_manifest
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.transfer import download, needed, restored_path, verify
from trainyard.errors import JobError
from trainyard.storage import layout
from trainyard.storage.disk import room_on
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store, open_store

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
    CorruptCheckpointError, ValueError when its manifest is torn, or DiskFullError.
    """
    manifest, receipt = read_manifest(store, identity), tickets.receipt(identity)
    staged = receipt.sources if receipt is not None else {}
    wanted = needed(manifest, seats.ranks) if manifest.world_size == seats.world_size else manifest.files
    if not to_resume:
        wanted = [entry for entry in wanted if not entry.path.startswith(_OPTIMIZER)]
    download(store, manifest, identity.folder, folder, wanted, staged)
    with room_on(folder):
        (folder / WORLD_SIZE).write_text(str(manifest.world_size), encoding="ascii")
    return manifest


def adopt(source: Path, folder: Path) -> None:
    """Have a checkpoint of Trainer in a folder: links to its files, and a copy of the state that is changed.

    One of ours has the names that Trainer looks for, too; it is read whole first. Raises CorruptCheckpointError when it
    is not as it was committed, ValueError when its manifest is torn, JobError when that is of a later format or when it
    was set aside or never committed, and DiskFullError.
    """
    if folder.exists():  # another process of this node has seen to it
        return
    source = source.resolve()
    if (source / layout.SET_ASIDE).exists():
        raise JobError(f"it was set aside, and its {layout.SET_ASIDE} tells why: name another checkpoint")
    if (source / layout.MANIFEST).exists():
        store = open_store(str(source.parent))
        verify(store, manifest_in(store, source.name), source.name)
    elif CheckpointId.parse(source.name) is not None:
        raise JobError(f"it was never committed, for it has no {layout.MANIFEST}: name another checkpoint")
    with room_on(folder):
        _link(source, folder)


def _link(source: Path, folder: Path) -> None:
    for file in source.rglob("*"):
        target = folder / restored_path(str(file.relative_to(source)))
        if file.is_dir() or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.name == _STATE:
            shutil.copyfile(file, target)
        else:
            target.symlink_to(file.resolve())
