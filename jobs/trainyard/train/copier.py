"""Copies of tensors that go on while training does.

Parameters and optimizer state do not change between two optimizer steps, so they can be copied beside the forward and
backward passes between. A thread of the lowest priority copies them in small pieces; whoever needs the tensors back
(the next optimizer step) takes the pieces that are left off its hands instead of waiting for it. On a GPU the copies
are queued on a stream of their own, and the next step waits for them on the device, not on the host.
"""

import collections
import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

_PIECE = 4 * 1024 * 1024
_LOWEST = 19


@dataclass(frozen=True)
class Copy:
    """A tensor and the place in host memory where its bytes go, as a tensor of bytes."""

    source: torch.Tensor
    target: torch.Tensor

    def now(self) -> None:
        """Make the copy, in this thread."""
        if self.source.numel():
            self.target.view(self.source.dtype).view(self.source.shape).copy_(self.source)


@dataclass
class _Round:
    """The copies of one snapshot."""

    copies: list[Copy]
    versions: list[int]
    then: Callable[[bool], None]
    under_way: int = 0
    changed: bool = False
    intact: bool | None = None
    event: torch.cuda.Event | None = None


class Copier:
    """Makes copies in the background, one round after the other."""

    def __init__(self) -> None:
        self._pieces: collections.deque[tuple[int, int, int]] = collections.deque()
        self._round: _Round | None = None
        self._changed = threading.Condition()
        self._stream: torch.cuda.Stream | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="copies of the state", daemon=True)
        self._thread.start()

    def start(self, copies: Iterable[Copy], then: Callable[[bool], None]) -> None:
        """Begin a round. At its end `then` is called, in the background, with whether no tensor has changed since."""
        self.settle()
        listed = list(copies)
        made = _Round(listed, _versions(listed), then)
        pieces = list[tuple[int, int, int]]()
        if on_device := [copy for copy in listed if copy.source.is_cuda]:
            made.event = self._queue_on_device(on_device)
        for copy in listed:
            if copy.source.is_cuda:
                continue
            if copy.source.is_contiguous():
                pieces += _pieces(copy)
            else:
                copy.now()  # element by element, as channels_last weights are
        with self._changed:
            self._pieces.extend(pieces)
            self._round = made
            if not pieces:
                self._end_copies(made)
            self._changed.notify_all()

    def release(self) -> None:
        """Return when the tensors may change: what is left of the copies is made here and now."""
        self._raise_error()
        current = self._round
        if current is None or current.intact is not None:
            return
        if current.event is not None:
            current.changed = current.changed or _versions(current.copies) != current.versions
            torch.cuda.current_stream().wait_event(current.event)
        while self._copy_piece(current):
            pass
        with self._changed:
            self._changed.wait_for(lambda: current.intact is not None)

    def settle(self) -> None:
        """Return when the round is over, `then` included."""
        self.release()
        with self._changed:
            self._changed.wait_for(lambda: self._round is None)
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _queue_on_device(self, copies: list[Copy]) -> torch.cuda.Event:
        self._stream = self._stream or torch.cuda.Stream(priority=0)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for copy in copies:
                if copy.source.numel():
                    target = copy.target.view(copy.source.dtype).view(copy.source.shape)
                    target.copy_(copy.source, non_blocking=True)
        event = torch.cuda.Event()
        event.record(self._stream)
        return event

    def _copy_piece(self, current: _Round) -> bool:
        with self._changed:
            if not self._pieces:
                return False
            target, source, size = self._pieces.popleft()
            current.under_way += 1
        ctypes.memmove(target, source, size)  # gives the interpreter's lock away
        with self._changed:
            current.under_way -= 1
            if not self._pieces and not current.under_way:
                self._end_copies(current)
                self._changed.notify_all()
        return True

    def _end_copies(self, current: _Round) -> None:
        # Every write in place counts a tensor's version up: one that was written to is half old and half new. What
        # the device copies is looked at in release(), before the next step is allowed to write.
        on_device = current.event is not None
        current.intact = not current.changed and (on_device or _versions(current.copies) == current.versions)

    def _work(self) -> None:
        # Of this thread alone, and of what is copied in it.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._round is not None)
                current = self._round
            assert current is not None
            try:
                self._finish(current)
            except Exception as error:  # noqa: BLE001 - a full disk, say: the training thread raises it
                self._error = error
            with self._changed:
                self._round = None
                self._changed.notify_all()

    def _finish(self, current: _Round) -> None:
        while self._copy_piece(current):
            pass
        with self._changed:
            self._changed.wait_for(lambda: current.intact is not None)
        if current.event is not None:
            current.event.synchronize()
        current.then(bool(current.intact))


def _versions(copies: list[Copy]) -> list[int]:
    return [copy.source._version for copy in copies]


def _pieces(copy: Copy) -> list[tuple[int, int, int]]:
    """(target, source, bytes) of pieces that are quickly copied."""
    size = copy.source.nbytes
    target, source = copy.target.data_ptr(), copy.source.data_ptr()
    return [(target + at, source + at, min(_PIECE, size - at)) for at in range(0, size, _PIECE)]
