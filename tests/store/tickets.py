"""Tickets as training processes leave them, for small files of their own."""

import time
from pathlib import Path

from trainyard.checkpoint.retain import Retention
from trainyard.checkpoint.staging import Commit, Run, StagedFile, Ticket
from trainyard.storage.store import Store


def ticket(
    store: Store, folder: Path, rank: int = 0, *, step: int = 10, attempt: int = 1, world: int = 1, local: int = 1,
    node: int = 0, nodes: int | None = None, size: int = 1000, endpoint: str | None = None,
) -> Ticket:  # fmt: skip
    """What a rank leaves for a step: one file, of so many bytes."""
    folder.mkdir(exist_ok=True)
    name = f"rng_state_{rank}.pth"
    (folder / f"{step}-{name}").write_bytes(bytes([rank]) * size)
    commit = Commit("ddp", 8, {}, {"loss": 1.0}, Retention(3, 1, None, False)) if rank == 0 else None
    return Ticket(
        step, attempt, rank, world, local, node, nodes or world // local, Run(store.uri, endpoint, None),
        (StagedFile(name, str(folder / f"{step}-{name}"), size),), time.time(), commit,
    )  # fmt: skip
