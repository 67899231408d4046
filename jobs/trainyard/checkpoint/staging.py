"""What lies staged on a node: the hand-over from its training processes to its uploader, as files.

A training process fills buffers with its part of a checkpoint and then, in one rename, leaves a ticket: from then
on its part is whole, whatever becomes of the process. When every rank of the node has left its ticket the uploader
sends the parts off, and leaves a receipt. Both survive either side's death, because nothing is kept in memory.

tickets/00000400-00003-rank-1.json   what rank 1 has staged for the checkpoint
tickets/00000400-00003-receipt.json  what became of it
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainyard.checkpoint.retain import Retention
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store, open_store

_TICKET = re.compile(r"(?P<id>\d{8,}-\d{5,})-rank-(?P<rank>\d+)\.json\Z")
_RECEIPT = "-receipt.json"
_KEPT_RECEIPTS = 64

State = Literal["Committed", "Failed", "Abandoned"]
"""Committed: this node's part is sent, and on the node of rank 0 the whole is committed. Failed: trying again does not
mend it. Abandoned: a part is void, or will not come any more."""


@dataclass(frozen=True)
class StagedFile:
    """A file of a checkpoint: its path there, and where its bytes lie on this node."""

    path: str
    source: str
    size: int


@dataclass(frozen=True)
class Run:
    """The run that a checkpoint belongs to."""

    uri: str
    endpoint: str | None
    region: str | None

    @property
    def store(self) -> Store:
        """The run's folder in storage."""
        return open_store(self.uri, self.endpoint, self.region)


@dataclass(frozen=True)
class Commit:
    """What the node of rank 0 needs besides the files to commit a checkpoint."""

    strategy: str
    global_batch_size: int
    versions: dict[str, str]
    metrics: dict[str, float]
    retention: Retention
    in_use: tuple[str, ...] = ()
    """Checkpoints that must not be deleted."""
    metrics_file: str | None = None
    """What metrics.jsonl holds up to this step: it is in storage before the checkpoint is."""
    goodput: dict[str, float] = field(default_factory=dict)
    """Where the attempt's time has gone, in seconds."""
    requested: bool = False
    """Whether somebody asked for it."""


@dataclass(frozen=True)
class Ticket:
    """One rank's part of a checkpoint: what of it is on this node."""

    step: int
    attempt: int
    rank: int
    world_size: int
    local_size: int
    """Ranks on this node: so many tickets make its part whole."""
    node: int
    nodes: int
    """Nodes of the group."""
    run: Run
    files: tuple[StagedFile, ...]
    started: float
    """When the save began, in seconds since the epoch."""
    commit: Commit | None = None
    """Only rank 0 has one."""
    void: str = ""
    """Why this part must not be used; the whole checkpoint is given up then."""

    @property
    def id(self) -> CheckpointId:
        """The checkpoint."""
        return CheckpointId(self.step, self.attempt)

    @classmethod
    def from_json(cls, data: bytes) -> "Ticket":
        """The ticket of a text. Raises ValueError, TypeError or KeyError when it is none."""
        document: dict[str, Any] = json.loads(data)
        files = tuple(StagedFile(**entry) for entry in document.pop("files"))
        commit = document.pop("commit")
        if commit is not None:
            commit = Commit(
                **{**commit, "retention": Retention(**commit["retention"]), "in_use": tuple(commit["in_use"])}
            )
        return cls(**{**document, "run": Run(**document["run"]), "files": files, "commit": commit})


@dataclass(frozen=True)
class Receipt:
    """What became of a node's part of a checkpoint."""

    state: State
    message: str = ""
    full: bool = False
    """Whether it failed because the storage is full."""
    seconds: float = 0.0
    """From the beginning of the save to its commit."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each file lies on this node, for who restores it from there."""

    @property
    def may_be_taken_back(self) -> bool:
        """Whether what it is of can be sent when the storage answers again: its buffers must stay as they are."""
        return self.state == "Failed" and not self.full


@dataclass(frozen=True)
class Tickets:
    """The tickets and receipts of a node."""

    folder: Path

    def leave(self, ticket: Ticket) -> None:
        """Say that a rank's part is whole."""
        self._write(self.folder / f"{ticket.id}-rank-{ticket.rank}.json", asdict(ticket))

    def waiting(self) -> list[list[Ticket]]:
        """The tickets of each checkpoint whose part is whole on this node and has no receipt, oldest first."""
        groups: dict[CheckpointId, list[Ticket]] = {}
        done = set()
        for name in os.listdir(self.folder) if self.folder.exists() else ():  # noqa: PTH208 - names are enough
            if name.endswith(_RECEIPT):
                done.add(CheckpointId.parse(name.removesuffix(_RECEIPT)))
            elif (ticket := self._read(name)) is not None:
                groups.setdefault(ticket.id, []).append(ticket)
        return [
            sorted(group, key=lambda ticket: ticket.rank)
            for identity, group in sorted(groups.items())
            if identity not in done and len(group) == group[0].local_size
        ]

    def give_receipt(self, identity: CheckpointId, receipt: Receipt) -> None:
        """Say what became of a checkpoint's part. Of receipts the newest are kept."""
        self._write(self.folder / f"{identity}{_RECEIPT}", asdict(receipt))
        receipts = sorted(self.folder.glob(f"[0-9]*{_RECEIPT}"), key=lambda file: file.stat().st_mtime_ns)
        for old in receipts[:-_KEPT_RECEIPTS]:
            old.unlink(missing_ok=True)

    def forget_before(self, attempt: int) -> None:
        """Remove what attempts before one have left: their buffers are gone."""
        # Receipts at last: without its own a ticket would be sent again.
        for file in sorted(self.folder.glob("[0-9]*.json"), key=lambda file: file.name.endswith(_RECEIPT)):
            identity = CheckpointId.parse(file.name.partition("-rank-")[0].removesuffix(_RECEIPT))
            if identity is not None and identity.attempt < attempt:
                file.unlink(missing_ok=True)

    def try_again(self) -> None:
        """Take back the receipts of what failed but may be sent now, because the storage answers again."""
        for file in self.folder.glob(f"[0-9]*{_RECEIPT}"):
            identity = CheckpointId.parse(file.name.removesuffix(_RECEIPT))
            receipt = self.receipt(identity) if identity is not None else None
            if receipt is not None and receipt.may_be_taken_back:
                file.unlink(missing_ok=True)

    def receipt(self, identity: CheckpointId) -> Receipt | None:
        """What became of a checkpoint's part; None as long as it is under way."""
        try:
            document = json.loads((self.folder / f"{identity}{_RECEIPT}").read_bytes())
        except FileNotFoundError:
            return None
        return Receipt(**document)

    def withdraw(self, identity: CheckpointId, rank: int) -> None:
        """Take a rank's ticket back: its buffers are used again. The receipt stays, for the other ranks."""
        (self.folder / f"{identity}-rank-{rank}.json").unlink(missing_ok=True)

    def _read(self, name: str) -> Ticket | None:
        if not _TICKET.match(name):
            return None
        try:
            return Ticket.from_json((self.folder / name).read_bytes())
        except (OSError, ValueError, TypeError, KeyError):
            return None  # removed in this moment, or of another version: nothing to send

    def _write(self, file: Path, document: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}-{os.getpid()}")
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(file)
