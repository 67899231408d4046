"""Buffers on a node in which a training process stages its part of a checkpoint.

A buffer is a memory-mapped file, in memory or on disk, that is used again and again: what is copied into it lies
there as the file that is uploaded. A slot holds the buffers of one checkpoint; there are a few, so that one can be
filled while another is sent off.
"""

import collections
import contextlib
import mmap
import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainyard.checkpoint.staging import Tickets
from trainyard.errors import DiskFullError
from trainyard.storage.disk import room_on
from trainyard.storage.layout import CheckpointId

MAX_SLOTS = 4
_SMALL = 64 * 1024 * 1024
"""Bytes of a slot up to which there are MAX_SLOTS of them; of larger ones there are two."""
_ROUND = 1024 * 1024


class _Map(mmap.mmap):
    """A mapping that a GPU can reach until it ends.

    CUDA goes by addresses: when memory is unmapped that is still registered, what is copied to whatever lies at that
    address next goes to the pages of old, without an error.
    """

    _registered = 0

    def pin(self, address: int) -> int:
        """Let a GPU reach it; `address`: where it lies. Returns 0 or the error of CUDA."""
        failed = int(torch.cuda.cudart().cudaHostRegister(address, len(self), 0))
        self._registered = 0 if failed else address
        return failed

    def __del__(self) -> None:
        if self._registered and not sys.is_finalizing():
            torch.cuda.cudart().cudaHostUnregister(self._registered)


class Buffer:
    """One memory-mapped file; it grows and never shrinks. Its mapping ends with the last view of its bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = torch.empty(0, dtype=torch.uint8)

    def fit(self, size: int, pinned: bool) -> None:
        """Have room for so many bytes, which a GPU reaches by itself if `pinned`.

        Raises OSError (ENOSPC), now and not at a write to the mapping.
        """
        size = max(size, 1)  # an empty file of a checkpoint is a file too
        if size <= len(self.bytes):
            return
        size += -size % _ROUND
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            mapping = _Map(descriptor, size)
        finally:
            os.close(descriptor)
        self.bytes = torch.frombuffer(mapping, dtype=torch.uint8)
        if pinned and (failed := mapping.pin(self.bytes.data_ptr())):
            with contextlib.suppress(RuntimeError):  # the next kernel tells the error again: not one of training
                torch.zeros(1, device="cuda")
            warnings.warn(f"staging buffers are not pinned (CUDA error {failed}): copies are slower", stacklevel=3)

    def drop(self) -> None:
        """Remove the file; its memory goes with the last view of its bytes."""
        self.path.unlink(missing_ok=True)


@dataclass
class Slot:
    """The buffers of one checkpoint."""

    folder: Path
    buffers: list[Buffer] = field(default_factory=list)
    holds: CheckpointId | None = None

    def buffer(self, index: int, size: int, pinned: bool) -> Buffer:
        """The buffer with a number, with room for so many bytes."""
        while len(self.buffers) <= index:
            self.buffers.append(Buffer(self.folder / f"buffer-{len(self.buffers)}"))
        self.buffers[index].fit(size, pinned)
        return self.buffers[index]

    def drop(self, first: int = 0) -> None:
        """Remove its buffers, from one on."""
        for buffer in self.buffers[first:]:
            buffer.drop()
        del self.buffers[first:]

    @property
    def size(self) -> int:
        """Bytes of all its buffers."""
        return sum(len(buffer.bytes) for buffer in self.buffers)


class Slots:
    """The slots of a training process."""

    def __init__(self, folder: Path, fallback: Path, tickets: Tickets, rank: int, pinned: bool = False) -> None:
        """`fallback`: where further buffers go when `folder`, in memory, is full. `pinned`: in memory, for a GPU."""
        self.folder, self.fallback, self.tickets, self.rank, self.pinned = folder, fallback, tickets, rank, pinned
        self.moved = False
        """Whether memory was full: to be told, and set back."""
        self.cramped = False
        """Whether there was no room for a further slot: to be told, and set back."""
        self.slots: list[Slot] = []
        self._most = MAX_SLOTS
        self._used_again = collections.deque[CheckpointId]()

    def free(self) -> bool:
        """Whether a checkpoint can be staged without waiting."""
        return self._may_grow() or any(self._is_free(slot) for slot in self.slots)

    def take(self) -> Slot | None:
        """A slot for a new checkpoint: a fresh one, or that with the oldest checkpoint; None when all are busy."""
        if self._may_grow() and (fresh := self._grow()) is not None:
            return fresh
        free = [slot for slot in self.slots if self._is_free(slot)]
        if not free:
            return None
        slot = min(free, key=lambda each: each.holds or CheckpointId(0, 0))
        if slot.holds is not None:
            self._used_again.append(slot.holds)
            slot.holds = None
        return slot

    def withdraw(self) -> None:
        """Take the tickets back of what is no longer in its slot. Not while training waits: a busy disk takes its time.

        Until then their receipts keep them from being sent.
        """
        while self._used_again:
            self.tickets.withdraw(self._used_again.popleft(), self.rank)

    def room(self, slot: Slot, index: int, size: int) -> Buffer:
        """A buffer of a slot, pinned if it can be: not on disk.

        Raises DiskFullError when neither memory nor disk has room for it.
        """
        try:
            with room_on(slot.folder):
                return slot.buffer(index, size, self.pinned and self.folder != self.fallback)
        except DiskFullError:
            if self.folder == self.fallback:
                raise
        slot.drop(first=index)
        self.folder, self.moved = self.fallback, True
        slot.folder = self.fallback / slot.folder.name
        with room_on(slot.folder):
            return slot.buffer(index, size, pinned=False)

    def busy(self) -> list[CheckpointId]:
        """What is staged and not settled, oldest first."""
        return sorted(slot.holds for slot in self.slots if slot.holds is not None and not self._is_free(slot))

    def _grow(self) -> Slot | None:
        """A further slot; None when there is no room for as much as the first one holds: then there is never another.

        That is found out here and not in the middle of a save, where the other ranks count on this one.
        """
        # A script may make several Trainers: each has slots of its own.
        slot = Slot(self.folder / f"rank-{self.rank}-{id(self):x}-{len(self.slots)}")
        before = self.folder, self.moved
        try:
            for index, buffer in enumerate(self.slots[0].buffers if self.slots else ()):
                self.room(slot, index, len(buffer.bytes))
        except DiskFullError:
            slot.drop()
            self.folder, self.moved = before
            self._most, self.cramped = len(self.slots), True
            return None
        self.slots.append(slot)
        return slot

    def _may_grow(self) -> bool:
        if len(self.slots) >= self._most:
            return False
        return len(self.slots) < 2 or self.slots[0].size <= _SMALL

    def _is_free(self, slot: Slot) -> bool:
        receipt = self.tickets.receipt(slot.holds) if slot.holds is not None else None
        # What has failed at the end of a run is sent yet, before the next attempt.
        return slot.holds is None or (receipt is not None and not receipt.may_be_taken_back)
