"""From staged files to a committed checkpoint: what a node's uploader does, away from the training processes.

Each node uploads what its ranks have staged, with digests on the way, and puts a list of its parts beside them. The
node of rank 0 writes `manifest.json` when the lists of all nodes are in and every object has the size it should: no
process that trains takes part, so a checkpoint that was staged whole is committed even when all of them are dead.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard import errors
from trainyard.checkpoint.attempts import newest_number, now
from trainyard.checkpoint.manifest import FileEntry, Manifest, Parts
from trainyard.checkpoint.retain import retain
from trainyard.checkpoint.staging import Commit, Receipt, Run, Ticket, Tickets
from trainyard.checkpoint.transfer import AT_ONCE, upload
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.segments import GrowingFile
from trainyard.storage.store import Store

Tell = Callable[[dict[str, Any]], None]

_FIRST = ("trainer_state.json", "model", "optimizer", "global_step", "pytorch_model", "scheduler", "rng_state")
"""Beginnings of the files that resuming needs, in this order; the rest (tokenizer, templates) comes after them."""
_HURRIED = 3.0
"""Seconds that rank 0's node waits for the parts of the others when the next attempt waits for the answer: these, or as
many as its own part took."""
_LATE = 60.0
"""Seconds in which an object that another node has put shows in a listing."""
_MAX_PAUSE = 60.0


class _GivenUpError(Exception):
    """A checkpoint that nobody can complete any more."""


class _NotKeptError(errors.StorageError):
    """An object is not there as it was sent."""


@dataclass
class _Sent:
    """A part that is uploaded and waits for those of other nodes."""

    tickets: list[Ticket]
    entries: list[FileEntry]
    since: float
    took: float
    """Seconds of its upload."""
    missing_since: float = 0.0
    """When an object of another node, which says that it is there, was not found first; 0 when none was missed."""
    parts: dict[str, Parts] = field(default_factory=dict)
    """What the nodes have told of their parts, by path."""


@dataclass
class Uploader:
    """Sends off what a node has staged, one checkpoint after the other."""

    tickets: Tickets
    tell: Tell
    hurry: bool = False
    """Whether somebody waits to know what is committed, of ranks that have gone."""
    last: bool = False
    """Whether a run waits for it to end: what cannot be sent is then given up after one try."""
    _sent: dict[CheckpointId, _Sent] = field(default_factory=dict)
    _stores: dict[Run, Store] = field(default_factory=dict)
    _pause: float = 0.5
    _at_once: int = AT_ONCE
    """Fewer after each failure: on a narrow way many parts beside each other would all miss their deadline."""
    _retry_at: float = 0.0
    _metrics_file: Path | None = None
    _metrics: GrowingFile = field(default_factory=lambda: GrowingFile(layout.METRICS, durable=True))
    """The copy of that file in storage."""

    def copy_metrics(self, store: Store, file: Path) -> None:
        """Have in storage what an attempt's metrics.jsonl holds now. Raises StorageError, OSError without a file."""
        if file != self._metrics_file:
            self._metrics, self._metrics_file = GrowingFile(layout.METRICS, durable=True), file
        self._metrics.copy(store, file)

    def try_now(self) -> None:
        """End the pause after a failure: from now on somebody waits."""
        self._retry_at = 0.0

    def work(self) -> bool:
        """Do what there is to do. Returns whether something is left that only time will bring.

        Raises OSError when this node's disk does not take what became of a checkpoint.
        """
        left = False
        groups = self.tickets.waiting()
        for group in groups:
            if group[0].id not in self._sent and not self._send(group):
                left = True
                break  # the storage is away: the newer ones would fare no better
        full: OSError | None = None
        for identity in list(self._sent):
            try:
                left = not self._commit(identity) or left
            except OSError as error:  # no room for a receipt: the others are committed in the storage all the same
                full = full or error
        if full is not None:
            raise full
        return left

    def _send(self, group: list[Ticket]) -> bool:
        """Upload a part; whether that is over."""
        if self.tickets.receipt(group[0].id) is not None:
            return True  # given up together with another one
        if time.monotonic() < self._retry_at:
            return False
        ticket, begun = group[0], time.monotonic()
        try:
            entries = self._upload(self._store(ticket.run), group)
        except errors.StorageError as error:
            return self._failed(group, error)
        if entries is None:
            return True
        self._pause, self._at_once = 0.5, min(AT_ONCE, 2 * self._at_once)
        self._sent[ticket.id] = _Sent(group, entries, since := time.monotonic(), since - begun)
        return True

    def _upload(self, store: Store, group: list[Ticket]) -> list[FileEntry] | None:
        """Upload a part and let the other nodes know; None when it is given up. Raises StorageError."""
        ticket = group[0]
        files = sorted((file for each in group for file in each.files), key=lambda file: _order(file.path))
        try:
            if void := next((each.void for each in group if each.void), ""):
                raise _GivenUpError(void)
            if _superseded(store, ticket):
                raise _GivenUpError("a newer attempt is claimed, and goes on from another one")
            metrics = ticket.commit.metrics_file if ticket.commit is not None else None
            if metrics is not None:
                self.copy_metrics(store, Path(metrics))
            entries = upload(store, ticket.id.folder, files, self._at_once)
            if ticket.nodes > 1:
                _check(store, ticket.id, entries)
                _put_parts(store, ticket, Parts(ticket.node, tuple(entries)))
        except (_GivenUpError, errors.NotFoundError, OSError) as error:
            # Or its buffers are gone: the attempt was swept. Somebody else goes on from another checkpoint.
            if ticket.nodes > 1:
                _put_parts(store, ticket, Parts(ticket.node, (), given_up=str(error)))
            self._abandon(ticket, str(error))
            return None
        return entries

    def _failed(self, group: list[Ticket], error: errors.StorageError) -> bool:
        """Whether to give up: where trying again cannot help, or somebody waits for an answer."""
        full = isinstance(error, errors.StorageFullError)
        if full or self.last:
            # The end of a run waits out an outage once, not once for each checkpoint that it holds up.
            for each in self.tickets.waiting() if self.last else [group]:
                self.tickets.give_receipt(each[0].id, Receipt("Failed", str(error), full))
            return True
        self._note(group[0], f"is staged and waits for the storage: {error}")
        self._pause, self._at_once = min(2 * self._pause, _MAX_PAUSE), max(1, self._at_once // 2)
        self._retry_at = time.monotonic() + self._pause
        return False

    def _abandon(self, ticket: Ticket, why: str) -> None:
        self.tickets.give_receipt(ticket.id, Receipt("Abandoned", why))
        self._note(ticket, f"is given up: {why}")

    def _note(self, ticket: Ticket, text: str) -> None:
        self.tell({"event": "note", "attempt": ticket.attempt, "text": f"checkpoint {ticket.id} {text}"})

    def _commit(self, identity: CheckpointId) -> bool:
        """Write the manifest when it is this node's to write and everything is there; whether that is over."""
        if time.monotonic() < self._retry_at:
            return False
        sent = self._sent[identity]
        ticket = sent.tickets[0]
        store = self._store(ticket.run)
        try:
            if ticket.commit is not None:
                entries = self._all_entries(store, ticket, sent)
                if entries is None:
                    late = self.hurry and time.monotonic() > sent.since + max(_HURRIED, sent.took)
                    if not late and not _superseded(store, ticket):
                        return False
                    raise _GivenUpError("the parts of other nodes did not come")
                _write_manifest(store, ticket, entries)
        except _GivenUpError as error:
            self._abandon(ticket, str(error))
            del self._sent[identity]
            return True
        except errors.StorageError as error:
            over = self._failed(sent.tickets, error)
            if over or isinstance(error, _NotKeptError):
                del self._sent[identity]
            return over
        seconds = round(time.time() - ticket.started, 3)
        sources = {file.path: file.source for each in sent.tickets for file in each.files}
        self.tickets.give_receipt(identity, Receipt("Committed", seconds=seconds, sources=sources))
        del self._sent[identity]
        if ticket.commit is not None:
            self._committed(store, ticket, ticket.commit, seconds)
        return True

    def _all_entries(self, store: Store, ticket: Ticket, sent: _Sent) -> list[FileEntry] | None:
        """The entries of all nodes' files; None as long as some are missing. Raises _GivenUpError."""
        entries = {entry.path: entry for entry in sent.entries}
        if ticket.nodes > 1:
            for each in store.list(f"{ticket.id.folder}/{layout.PARTS}"):
                if each.path not in sent.parts:
                    with contextlib.suppress(errors.NotFoundError):  # swept in this moment, by a newer attempt
                        sent.parts[each.path] = _parts(store, each.path)
            for part in sent.parts.values():
                if part.given_up:
                    raise _GivenUpError(f"node {part.node} gave up its part: {part.given_up}")
                entries |= {entry.path: entry for entry in part.entries}
            if len(sent.parts) < ticket.nodes:
                return None
        try:
            _check(store, ticket.id, list(entries.values()))
        except _NotKeptError as error:
            _check(store, ticket.id, sent.entries)
            sent.missing_since = sent.missing_since or time.monotonic()
            if time.monotonic() > sent.missing_since + _LATE:
                raise _GivenUpError(str(error)) from error
            return None
        return [entries[path] for path in sorted(entries)]

    def _committed(self, store: Store, ticket: Ticket, commit: Commit, seconds: float) -> None:
        told = {"attempt": ticket.attempt, "id": str(ticket.id), "step": ticket.step, "seconds": seconds}
        self.tell({"event": "checkpoint", **told})
        in_use = [found for name in commit.in_use if (found := CheckpointId.parse(name)) is not None]
        with contextlib.suppress(errors.TrainyardError):  # the next commit tries again
            if not _superseded(store, ticket):  # else the newer one says what is the newest, and what is kept
                store.put(layout.NEWEST, str(ticket.id).encode())
                retain(store, commit.retention, [*in_use, ticket.id])

    def _store(self, run: Run) -> Store:
        if run not in self._stores:
            self._stores[run] = run.store
        # Where the run waits for it to end an outage is waited out, once; else it is told, and tried again from here.
        return self._stores[run].patient() if self.last else self._stores[run]


def _superseded(store: Store, ticket: Ticket) -> bool:
    """Whether a newer attempt is claimed: what is committed from now on may come too late for it."""
    return newest_number(store) > ticket.attempt


def _check(store: Store, identity: CheckpointId, entries: list[FileEntry]) -> None:
    """Raises _NotKeptError for an object that is not there as it was sent, StorageError when nobody can tell.

    A server may answer well and keep nothing (S3 says 200 with an error in its body).
    """
    there = {each.path: each.size for each in store.list(identity.folder)}
    for entry in entries:
        if (size := there.get(f"{identity.folder}/{entry.path}")) != entry.size:
            what = "is not there" if size is None else f"has {size:,} bytes"
            raise _NotKeptError(f"{store.url(identity.folder)}/{entry.path} {what} after its upload")


def _parts(store: Store, path: str) -> Parts:
    """The list of a node. Raises NotFoundError, _GivenUpError when it is not one."""
    try:
        return Parts.from_json(store.get(path))
    except (ValueError, KeyError, TypeError) as error:
        raise _GivenUpError(f"{store.url(path)} is damaged: {error!r}") from error


def _put_parts(store: Store, ticket: Ticket, parts: Parts) -> None:
    store.put(layout.parts_path(ticket.id, ticket.node), parts.to_json())


def _write_manifest(store: Store, ticket: Ticket, entries: list[FileEntry]) -> None:
    commit = ticket.commit
    assert commit is not None
    manifest = Manifest(
        step=ticket.step,
        attempt=ticket.attempt,
        world_size=ticket.world_size,
        strategy=commit.strategy,
        global_batch_size=commit.global_batch_size,
        files=tuple(entries),
        metrics=commit.metrics,
        goodput=commit.goodput,
        versions=commit.versions,
        created_at=now(),
        requested=commit.requested,
    )
    store.put(f"{ticket.id.folder}/{layout.MANIFEST}", manifest.to_json())


def _order(path: str) -> tuple[int, str]:
    place = next((index for index, start in enumerate(_FIRST) if path.startswith(start)), len(_FIRST))
    return place, path
