"""The uploader's process: one a node, beside the training processes, for what is idle of the cores.

    python -m trainyard.launch.uploads DESCRIPTOR TICKETS EVENTS

DESCRIPTOR is a listening Unix socket (checkpoint/doorbell says what comes over it). When standard input ends, its owner
has gone: it finishes what is staged whole, for a minute at most, and ends.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard import errors
from trainyard.checkpoint import doorbell
from trainyard.checkpoint.attempts import newest_number
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.uploader import Uploader
from trainyard.launch import priority, terminal
from trainyard.launch.node import Node, hold
from trainyard.storage.layout import CheckpointId
from trainyard.train.events import Events

_LOOK_AGAIN = 0.25
_METRICS_INTERVAL = 5.0
_RESTART_PAUSE, _MOST_PAUSE, _SOON = 0.2, 30.0, 10.0
"""Seconds before it is started again; longer each time while it does not live for so long."""
_TURNS = "turns"
_STARVED_SECONDS = 60.0
_WAITED, _LEAST_SHARE = 0.9, 1 / 30
"""It starves when it waited for a core nine tenths of so many seconds, and had less than a thirtieth of that."""
_MOST_WORDS = 64 * 1024
_FAULT_SECONDS = 5.0
_LAST_SECONDS = 60.0
_FLUSH_SECONDS, _SLOW = 120.0, 20e6
"""What the next attempt gives a storage that does not answer, and the bytes a second of an upload that it waits for."""


class Uploads:
    """The uploader, from the side that owns it: started again whenever it dies.

    `held`: open files whose locks it holds as long as it lives, though its owner be killed.
    """

    def __init__(self, node: Node, held: Sequence[int] = ()) -> None:
        self.node, self._held = node, held
        self._closing, self._starting = threading.Event(), threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(node.bell))
        self._listener.listen()
        self._log = node.folder / "uploads.log"
        self._takes_turns = False
        """Whether it takes its turn of the cores with others, because they left it nothing idle."""
        self.process = self._start()
        self._thread = threading.Thread(target=self._watch, name="uploader's watch", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch_turns, name="uploader's turns", daemon=True).start()

    def flush(self) -> None:
        """Wait until nothing is left that can be committed now, as long as a slow upload of it may take."""
        groups = Tickets(self.node.tickets).waiting()
        staged = sum(file.size for group in groups for ticket in group for file in ticket.files)
        doorbell.flush(self.node.bell, _FLUSH_SECONDS + staged / _SLOW)

    def close(self, at_once: bool = False) -> None:
        """Let it finish what is staged whole, and end."""
        self._closing.set()
        self._starting.acquire()
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(0 if at_once else _LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._starting.release()
        self._thread.join()
        self._listener.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            self._log_before = log.tell()
            command = [sys.executable, "-m", "trainyard.launch.uploads", str(self._listener.fileno())]
            turns = [_TURNS] if self._takes_turns else []
            return subprocess.Popen(
                [*command, str(self.node.tickets), str(self.node.events_socket), *turns],
                stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[self._listener.fileno(), *self._held],
                process_group=0, env={**os.environ, **self.node.environment},
            )  # fmt: skip

    def _watch(self) -> None:
        pause, told = 0.0, None
        while not self._closing.is_set():
            begun = time.monotonic()
            status = self.process.wait()
            lived = time.monotonic() - begun
            pause = min(_MOST_PAUSE, 2 * pause) if pause and lived < _SOON else _RESTART_PAUSE
            if self._closing.wait(pause):
                return
            if self.process is not told:  # else the same one, whose successor could not be started
                ended, told = self._ended(status), self.process
                self._note(f"the uploader {ended} and is started again; what is staged is sent by the new one")
            with self._starting:
                if self._closing.is_set():
                    return
                try:
                    self.process = self._start()
                except OSError as error:  # no memory, no room on the disk: wait() returns at once the next time
                    self._note(f"the uploader cannot be started, and this is tried again: {error}")

    def _watch_turns(self) -> None:
        """Restart the uploader with a normal turn of the cores when it gets none: else it would commit nothing."""
        while not self._takes_turns:
            process = self.process
            ran_before, waited_before = priority.turns(process.pid)
            if self._closing.wait(_STARVED_SECONDS):
                return
            ran, waited = priority.turns(process.pid)
            least_wait = _STARVED_SECONDS * _WAITED
            has_waited = waited - waited_before > least_wait
            has_run = ran - ran_before >= least_wait * _LEAST_SHARE
            if process is self.process and has_waited and not has_run:
                self._takes_turns = True
                self._note("other programs keep the cores busy: the uploader now competes with them")
                process.kill()

    def _note(self, text: str) -> None:
        Events(str(self.node.events_socket)).send("note", text=text)

    def _ended(self, status: int) -> str:
        if status < 0:
            return f"was killed ({signal.Signals(-status).name})"
        words = ""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(self._log_before)
            words = log.read(_MOST_WORDS).decode(errors="replace").strip().rpartition("\n")[2]
        return f"has ended with status {status} ({words or 'without words'})"


@dataclass
class _Metrics:
    """metrics.jsonl of the attempt under way: a file that grows on this node, and is copied now and then."""

    kept: doorbell.Metrics
    size: int = -1
    due: float = 0.0


@dataclass(frozen=True)
class _Waiting:
    """Who has asked and is to be answered."""

    connection: socket.socket
    identity: CheckpointId | None
    """The checkpoint to be settled; None: everything that can be committed now."""
    last: bool
    """Whether the run waits for it to end."""


class _Server:
    def __init__(self, listener: socket.socket, tickets: Tickets, events: Events) -> None:
        self.listener, self.tickets = listener, tickets
        self.events = events
        self.uploader = Uploader(tickets, lambda event: events.send(event["event"], **event))
        self.waiting: list[_Waiting] = []
        self.metrics: _Metrics | None = None
        self.owned, self.deadline = True, 0.0
        self.inherited: list[Path] = []
        self.fault = ""
        """Why this node's disk does not take what became of a checkpoint; empty while it does."""

    def serve(self) -> None:
        left = self._work()
        while self.owned or (left and time.monotonic() < self.deadline):
            watched = [self.listener, sys.stdin] if self.owned else [self.listener]
            due = self.metrics is not None and self.metrics.kept.file.exists() and self._grown()
            pause = _FAULT_SECONDS if self.fault else _LOOK_AGAIN
            ready, _, _ = select.select(watched, [], [], pause if left or due else None)
            if sys.stdin in ready and not os.read(sys.stdin.fileno(), 1024):
                self.owned = False
                self.deadline = time.monotonic() + (2 * _FAULT_SECONDS if self.fault else _LAST_SECONDS)
                self._inherit()
            if self.listener in ready:
                self._hear()
            hurry = not self.owned or any(each.identity is None for each in self.waiting)
            last = any(each.last for each in self.waiting)
            if hurry > self.uploader.hurry or last > self.uploader.last:
                self.uploader.try_now()
            self.uploader.hurry, self.uploader.last = hurry, last
            left = self._work()
            self._copy_metrics(now=self.uploader.hurry)
            self._answer_all(left)
        self._copy_metrics(now=True)
        for folder in self.inherited:
            shutil.rmtree(folder, ignore_errors=True)

    def _work(self) -> bool:
        """Let the uploader work; whether something is left. A full disk of the node is told, and tried again."""
        try:
            left = self.uploader.work()
        except OSError as error:
            fault = f"what became of a checkpoint cannot be written down on this node: {error}"
            if fault != self.fault:
                self.events.send("note", text=f"{fault}. Free space there: it is tried again")
            self.fault = fault
            return True
        self.fault = ""
        return left

    def _inherit(self) -> None:
        """Hold the folders of an owner that was killed, so that the next run does not sweep them yet.

        An owner that ends in order still holds them, and removes them itself.
        """
        self.inherited = [folder for folder in _folders() if hold(folder)]

    def _hear(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(1.0)
        try:
            told = json.loads(connection.makefile().readline() or "{}")
        except (OSError, ValueError):
            told = {}
        if "metrics" in told:
            kept = doorbell.Metrics.from_told(told)
            if self.metrics is None or self.metrics.kept != kept:
                self.metrics = _Metrics(kept)
        if "settle" in told:
            identity = CheckpointId.parse(told["settle"]) if told["settle"] else None
            self.waiting.append(_Waiting(connection, identity, told.get("last", False)))
            return
        if "keep" in told:
            self._copy_metrics(now=True)
            _answer(connection, doorbell.SETTLED)
        connection.close()

    def _answer_all(self, left: bool) -> None:
        for each in list(self.waiting):
            settled = (not left) if each.identity is None else (self.tickets.receipt(each.identity) is not None)
            ends = each.last or each.identity is None  # who waits for that does not wait for a person, too
            failed = not settled and bool(self.fault) and ends
            if settled or failed:
                _answer(each.connection, {"failed": self.fault} if failed else doorbell.SETTLED)
            if settled or failed or _gone(each.connection):
                self.waiting.remove(each)
                each.connection.close()

    def _grown(self) -> bool:
        assert self.metrics is not None
        return self.metrics.kept.file.stat().st_size != self.metrics.size

    def _copy_metrics(self, now: bool) -> None:
        """Copy the rows that are new to storage, not more often than every few seconds."""
        known = self.metrics
        if known is None or not known.kept.file.exists() or not self._grown():
            return
        if time.monotonic() < known.due and not now:
            return
        with contextlib.suppress(errors.TrainyardError, OSError):  # curves can wait; checkpoints tell of the storage
            size, store = known.kept.file.stat().st_size, known.kept.run.store
            if newest_number(store) <= known.kept.attempt:  # else the rows are a newer attempt's to write
                self.uploader.copy_metrics(store, known.kept.file)
            known.size = size
        known.due = time.monotonic() + _METRICS_INTERVAL


def _folders() -> list[Path]:
    """Those of this node that hold what is staged."""
    node = Node.here()
    return [folder for folder in (node.folder, node.memory) if folder is not None]


def _answer(connection: socket.socket, told: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(told).encode() + b"\n")


def _gone(connection: socket.socket) -> bool:
    """Whether who asked has given up."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def main(descriptor: str, tickets: str, events: str, turns: str = "") -> None:
    """Serve until the owner has gone and nothing is left. `turns`: _TURNS to take more than what is idle."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what the kernel says to one that stands still when its owner goes
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # who asks all processes of a run to stop wants its last save sent
    terminal.leave()
    # Other programs leave nothing idle: at idle priority it would not even reach its first line.
    if turns == _TURNS or priority.is_busy():
        priority.lower(os.getpid(), priority.WATCHING)
    else:
        priority.only_idle()
    for folder in _folders():  # from the first moment: an owner that is killed is noticed only between two uploads
        hold(folder, as_uploader=True)
    _Server(socket.socket(fileno=int(descriptor)), Tickets(Path(tickets)), Events(events)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
