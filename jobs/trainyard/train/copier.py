"""Copies of tensors that go on while training does.

Parameters and optimizer state do not change between two optimizer steps, so they can be copied beside the forward and
backward passes between. A thread makes the copies piece by piece; whoever needs the tensors back (the next optimizer
step) takes the pieces that are left off its hands instead of waiting for it. What lies on a GPU is queued on a stream
of its own, and the next step waits for it on the device, not on the host.
"""

import collections
import ctypes
import functools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Copy:
    """A tensor and the place in host memory where its bytes go, as a tensor of bytes."""

    source: torch.Tensor
    target: torch.Tensor

    def now(self, non_blocking: bool = False) -> None:
        """Make the copy, in this thread. `non_blocking`: of a tensor on a GPU, on the current stream."""
        if self.source.numel():
            place = self.target.view(self.source.dtype).view(self.source.shape)
            place.copy_(self.source.detach(), non_blocking=non_blocking)


@dataclass
class _Round:
    """The copies of one snapshot."""

    copies: list[Copy]
    then: Callable[[bool], None]
    stream: torch.cuda.Stream | None
    """Where the copies of what lies on a GPU are queued; None when there are none."""
    pieces: collections.deque[Callable[[], object]] = field(default_factory=collections.deque)
    under_way: int = 0
    made: torch.cuda.Event | None = None
    """When the device has made its copies; once all are queued."""
    through: bool = False
    """Whether every piece is copied, or queued."""
    intact: bool | None = None
    """Whether no tensor has changed since the beginning; None while that can still happen."""

    def __post_init__(self) -> None:
        self._versions = self._now()

    def look(self) -> None:
        """Find out whether it is intact: when the copies are made, or else before the tensors may change."""
        if self.intact is None:
            # A write in place counts a tensor's version up: one that was written to is half old and half new. Only what
            # is written through `.data` nobody can see.
            self.intact = self._now() == self._versions

    def _now(self) -> list[int]:
        return [copy.source._version for copy in self.copies]


class Copier:
    """Makes copies in the background, one round after the other."""

    def __init__(self) -> None:
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
        begun = _Round(listed, then, self._side_stream() if any(copy.source.is_cuda for copy in listed) else None)
        for copy in listed:
            if copy.source.is_cuda:
                begun.pieces.append(functools.partial(_queue, copy, begun.stream))
            elif copy.source.is_contiguous():
                begun.pieces.extend(_pieces(copy))
            else:
                copy.now()  # element by element, as channels_last weights are
        with self._changed:
            self._round = begun
            if not begun.pieces:
                self._end_pieces(begun)
            self._changed.notify_all()

    def release(self) -> None:
        """Return when the tensors may change: what is left of the copies is made here and now.

        On a GPU that is said to the current stream: what is queued there after this comes after the copies.
        """
        self._raise_error()
        current = self._round
        if current is None or current.intact is not None:
            return
        self._make_pieces(current)
        with self._changed:
            current.look()
        if current.made is not None:
            torch.cuda.current_stream().wait_event(current.made)

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

    def _side_stream(self) -> torch.cuda.Stream:
        """The stream of the copies, which from here on waits for all that is queued on the current one."""
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        return self._stream

    def _make_pieces(self, current: _Round) -> None:
        """Make pieces until none is left, and return when those of the other thread are made, too."""
        while self._make_piece(current):
            pass
        with self._changed:
            self._changed.wait_for(lambda: current.through)

    def _make_piece(self, current: _Round) -> bool:
        with self._changed:
            if not current.pieces:
                return False
            make = current.pieces.popleft()
            current.under_way += 1
        try:
            make()
        except Exception:
            current.intact = False
            raise
        finally:
            with self._changed:
                current.under_way -= 1
                if not current.pieces and not current.under_way:
                    self._end_pieces(current)
                    self._changed.notify_all()
        return True

    def _end_pieces(self, current: _Round) -> None:
        current.through = True
        if current.stream is None:
            current.look()
            return
        current.made = torch.cuda.Event(blocking=True)  # who waits for it sleeps, and takes no core
        current.made.record(current.stream)

    def _work(self) -> None:
        # Of no lower priority: where all cores are busy it would get none, and the next step would make the copies,
        # while a GPU or the other ranks wait.
        while True:
            self._take_turn()

    def _take_turn(self) -> None:
        """One round. Nothing of it is held afterwards: its tensors may be a whole model that nobody wants any more."""
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
        if current.stream is not None:  # a thread begins on the first GPU, and would take memory there for nothing
            torch.cuda.set_device(current.stream.device)
        self._make_pieces(current)
        if current.made is not None:
            current.made.synchronize()
            with self._changed:  # the tensors may not be released while they are looked at
                current.look()
        current.then(bool(current.intact))


def _queue(copy: Copy, stream: torch.cuda.Stream) -> None:
    """Let the device make a copy, after what is on the stream."""
    with torch.cuda.stream(stream):
        copy.now(non_blocking=True)


def _pieces(copy: Copy) -> list[Callable[[], object]]:
    """Pieces that are quickly copied."""
    size = copy.source.nbytes
    target, source = copy.target.data_ptr(), copy.source.data_ptr()
    return [
        functools.partial(ctypes.memmove, target + at, source + at, min(_PIECE, size - at))  # without Python's lock
        for at in range(0, size, _PIECE)
    ]
