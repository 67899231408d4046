"""A process that has imported everything a training process needs, and forks one on demand.

Importing torch, transformers and datasets costs more than the first steps of most jobs. It is done once
for each node, while Ray comes up; a restart pays nothing. The training function so also gets a process of
its own: a main thread for signals, a clean kill, and an exit code.

    python -m trainyard.launch.warm DESCRIPTOR [MODULE...]

DESCRIPTOR is a listening Unix socket; MODULEs are what this job needs besides (`imports_of`). A client
connects to it and sends one JSON line {"work", "log", "env"}; it gets {"pid"}, the training process's own
{"outcome", …} unless it died without a word, and {"status"} (negative: the signal that ended it). When the
client goes away its process is killed; when standard input ends, so does everything. The result goes
through the socket, because a disk that is full could not hold it.
"""

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainyard.launch import terminal
from trainyard.launch.node import ASKS, asks_held

if TYPE_CHECKING:
    from trainyard.protocol.ending import Ending
    from trainyard.spec.model import Spec

_PR_SET_PDEATHSIG = 1
_IMPORTS = (
    "trainyard.train.main",
    "accelerate",
    "deepspeed",
    "safetensors.torch",
    "transformers.models.auto.modeling_auto",
    "transformers.integrations.deepspeed",
)


@dataclass
class _Child:
    pid: int
    connection: socket.socket


def imports_of(spec: "Spec") -> list[str]:
    """What not every job needs: it would cost the first step of the others a second."""
    return ["sklearn.metrics"] if spec.data is not None and spec.data.evaluation is not None else []


def serve(descriptor: int, *more: str) -> None:
    """Import, accept, fork and reap until standard input ends. ASKS are held until they can be answered."""
    terminal.leave()
    for name in (*_IMPORTS, *more):
        __import__(name)
    gc.freeze()  # what is imported stays: no collection in a training process looks at it, and writes to shared pages
    _Server(socket.socket(fileno=descriptor)).run()


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.children: dict[int, _Child] = {}
        self.stopping = self.saving = False
        self.selector = selectors.DefaultSelector()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in ASKS:
            signal.signal(number, lambda *_: None)  # forwarded to the children in signalled()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the launcher, which decides
        self.wake = wake_read
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(wake_read, selectors.EVENT_READ, self.signalled)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.finish)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKS)

    def run(self) -> None:
        while True:
            # Signals first: after SIGTERM nothing is begun, though it was asked for at the same time.
            for key, _ in sorted(self.selector.select(), key=lambda ready: ready[0].fileobj != self.wake):
                key.data(key.fileobj)

    def accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        request = connection.makefile().readline()
        if not request:
            connection.close()
            return
        if self.stopping:
            _tell(connection, {"outcome": "Stopped", "message": "stopped before there was a step to save"})
            _tell(connection, {"status": 0})
            connection.close()
            return
        with asks_held():
            pid = os.fork()
            if pid == 0:
                self.become_training_process(json.loads(request), connection)
        self.children[pid] = _Child(pid, connection)
        if self.saving:
            os.kill(pid, signal.SIGUSR2)
            self.saving = False
        self.selector.register(connection, selectors.EVENT_READ, self.client_gone)
        _tell(connection, {"pid": pid})

    def become_training_process(self, request: dict[str, Any], connection: socket.socket) -> None:
        status = 1
        try:
            self.selector.close()
            self.listener.close()
            for child in self.children.values():
                child.connection.close()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # a save waits until there are steps
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            result = train(request)
            _tell(connection, result.document())
            status = 0 if result.outcome in ("Complete", "Stopped") else 1
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
        finally:
            # Not sys.exit: the atexit hooks are the parent's, and gloo's threads may still be winding down.
            os._exit(status)

    def client_gone(self, connection: socket.socket) -> None:
        child = next((each for each in self.children.values() if each.connection is connection), None)
        if child is None:
            return  # it has ended at the same moment: signalled() came first
        with contextlib.suppress(ConnectionResetError):
            if connection.recv(1024):
                return
        os.kill(child.pid, signal.SIGKILL)

    def signalled(self, wake: int) -> None:
        numbers = os.read(wake, 1024)
        self.stopping = self.stopping or signal.SIGTERM in numbers
        for pid in list(self.children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                child = self.children.pop(pid)
                self.selector.unregister(child.connection)
                _tell(child.connection, {"status": os.waitstatus_to_exitcode(status)})
                child.connection.close()
        # Of what is asked before there is anybody to save, the next process hears: it tells the other ranks.
        self.saving = self.saving or (signal.SIGUSR2 in numbers and not self.children)
        for number in ASKS:
            for child in self.children.values() if number in numbers else ():
                os.kill(child.pid, number)

    def finish(self, stdin: Any) -> None:
        if os.read(stdin.fileno(), 1024):
            return
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)  # torch's teardown would take two seconds, and there is nothing to tear down


def train(request: dict[str, Any]) -> "Ending":
    """Run one training process with its environment and its log. Returns how it ended."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # into the log: what a hung process is doing
    os.environ.update(request["env"])
    import torch

    from trainyard.train.main import run
    from trainyard.train.work import Work

    torch.set_num_threads(_threads(int(request["env"].get("LOCAL_WORLD_SIZE", "1"))))
    return run(Work.read(request["work"]))


def _threads(processes: int) -> int:
    """Threads of each of so many processes. Ray would say 1 in its workers' environment; here is the user's own."""
    return int(os.environ.get("OMP_NUM_THREADS") or max(1, len(os.sched_getaffinity(0)) // processes))


def _tell(connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return  # the client has gone; client_gone() does the rest


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
