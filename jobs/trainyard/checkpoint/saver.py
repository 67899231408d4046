"""The saver: from a staged folder to a committed checkpoint.

Called by every rank after each has staged its files. One process a node uploads what lies on that node;
rank 0 commits when every node's list of files is in. Everything happens before save() returns; wait() is
where an asynchronous saver will make its callers wait.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainyard.checkpoint.attempts import now
from trainyard.checkpoint.manifest import FileEntry, Manifest
from trainyard.checkpoint.retain import Retention, retain
from trainyard.checkpoint.transfer import staged_files, upload
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store


@dataclass(frozen=True)
class Place:
    """Where a process stands in the group."""

    rank: int
    local_rank: int
    gather: Callable[[list[dict[str, object]]], list[list[dict[str, object]]]]
    """Collects a list from every rank, on every rank: a collective."""


@dataclass(frozen=True)
class Saver:
    """Commits the checkpoints of one attempt."""

    store: Store
    attempt: int
    world_size: int
    strategy: str
    global_batch_size: int
    versions: dict[str, str]
    retention: Retention
    place: Place
    in_use: list[CheckpointId] = field(default_factory=list)

    def save(self, step: int, folder: Path, metrics: dict[str, float]) -> CheckpointId:
        """Commit the staged folder as the checkpoint of a step. A collective: every rank calls it.

        Raises StorageError when the store does not take it; the checkpoints before are as they were.
        """
        identity = CheckpointId(step, self.attempt)
        mine: list[FileEntry] = []
        self.place.gather([])  # every rank has staged its files once all are here
        if self.place.local_rank == 0:
            mine = upload(self.store, identity.folder, folder, staged_files(folder))
        lists = self.place.gather([asdict(entry) for entry in mine])
        if self.place.rank == 0:
            # Nodes that share a disk list the same files; one entry a path is enough.
            files = {entry["path"]: FileEntry(**entry) for part in lists for entry in part}  # type: ignore[arg-type]
            self._commit(identity, tuple(files[path] for path in sorted(files, key=str)), metrics)
        self.place.gather([])
        return identity

    def wait(self) -> None:
        """Return when everything that was saved is committed."""

    def _commit(self, identity: CheckpointId, files: tuple[FileEntry, ...], metrics: dict[str, float]) -> None:
        manifest = Manifest(
            step=identity.step,
            attempt=identity.attempt,
            world_size=self.world_size,
            strategy=self.strategy,
            global_batch_size=self.global_batch_size,
            files=files,
            metrics=metrics,
            versions=self.versions,
            created_at=now(),
        )
        self.store.put(f"{identity.folder}/{layout.MANIFEST}", manifest.to_json())
        retain(self.store, self.retention, [*self.in_use, identity])
