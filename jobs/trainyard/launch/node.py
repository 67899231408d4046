"""What a node has for the jobs that run on it: a folder, the warm process, and a socket for events."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.checkpoint.staging import Tickets
from trainyard.errors import BusyError
from trainyard.plan.machine import MEMORY
from trainyard.storage.layout import CheckpointId

_PREFIX = "trainyard-"
_SHORT = "/tmp"  # noqa: S108 - fresh folders in it, each with a mode of its own, and the locks of runs
_LOCK, _UPLOADS = "lock", "uploads.lock"
"""In a node's folder: held by who owns it, and by its uploader, which may outlive the owner."""
_LOOK_AGAIN = 0.25
_MAX_FOLDER = 32
"""Characters: Ray's sockets below the folder must keep within the 108 bytes that the kernel takes."""
_SOCKETS_ENV = "TRAINYARD_NODE_SOCKETS"
_MEMORY_ENV = "TRAINYARD_NODE_MEMORY"
_SPINS = "10000"
"""How often a thread of OpenMP looks whether there is more work before it gives its core away: for 0.2 ms or so.

Without a number it looks for milliseconds, and on full cores the uploader then finds nothing idle. Steps take no longer
(two threads on two cores: 0.98 to 1.0 of the time); with 1,000 those of small models take a twentieth more.
GOMP_SPINCOUNT,
https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""
ASKS = (signal.SIGTERM, signal.SIGUSR2)
"""What the training processes of a node are asked: to save and stop, and to save."""
FOLDER_ENV = "TRAINYARD_NODE"
"""Environment variable by which Ray's workers find the folder of the node they are on."""


@dataclass(frozen=True)
class Node:
    """This machine, for the length of a run."""

    folder: Path
    """For what may be large: staged and restored checkpoints."""
    sockets: Path
    """For what must have a short name: sockets, and Ray's session with its own."""

    memory: Path | None = None
    """For staged checkpoints that fit there; None where there is no such place."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which processes of this node find it (Node.here)."""
        return {
            FOLDER_ENV: str(self.folder),
            _SOCKETS_ENV: str(self.sockets),
            _MEMORY_ENV: str(self.memory or ""),
        }

    @property
    def tickets(self) -> Path:
        """What is staged on this node, and what became of it."""
        return self.folder / "tickets"

    @property
    def bell(self) -> Path:
        """Where the uploader listens."""
        return self.sockets / "uploads.sock"

    @property
    def restored(self) -> Path:
        """Checkpoints that were brought here to go on from."""
        return self.folder / "restored"

    def restored_checkpoint(self, identity: CheckpointId) -> Path:
        """Where a checkpoint is brought; the last part is called as Trainer calls its own."""
        return self.restored / str(identity) / f"checkpoint-{identity.step}"

    def keep_restored(self, identity: CheckpointId) -> None:
        """Remove the checkpoints that were brought here, but for one."""
        for folder in self.restored.glob("*-*"):
            if folder.name != str(identity):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def warm_socket(self) -> Path:
        """Where the warm process listens."""
        return self.sockets / "warm.sock"

    @property
    def events_socket(self) -> Path:
        """Where progress events arrive."""
        return self.sockets / "events.sock"

    def buffers(self, attempt: int, in_memory: bool) -> Path:
        """Folder for the staging buffers of an attempt."""
        place = self.memory if in_memory and self.memory is not None else self.staging(attempt)
        return place / f"buffers-{attempt:05d}"

    def sweep(self, attempt: int) -> None:
        """Remove what attempts before this one have staged here."""
        for place, pattern in ((self.folder, "attempt-*"), (self.memory, "buffers-*")):
            for folder in place.glob(pattern) if place is not None else ():
                if int(folder.name.rpartition("-")[2]) < attempt:
                    shutil.rmtree(folder, ignore_errors=True)
        Tickets(self.tickets).forget_before(attempt)

    def make_room(self, attempt: int) -> None:
        """The same on a disk that is full, unless some of it can still be committed."""
        if not Tickets(self.tickets).waiting():
            self.sweep(attempt)

    def staging(self, attempt: int) -> Path:
        """Folder in which an attempt puts its checkpoints together."""
        return self.folder / f"attempt-{attempt:05d}"

    @classmethod
    def here(cls) -> "Node":
        """The node that this process was started on."""
        memory = os.environ.get(_MEMORY_ENV)
        return cls(Path(os.environ[FOLDER_ENV]), Path(os.environ[_SOCKETS_ENV]), Path(memory) if memory else None)


class Warm:
    """The warm process, from the side that owns it."""

    def __init__(self, node: Node, module: str = "trainyard.launch.warm", imports: Sequence[str] = ()) -> None:
        """`imports`: modules that it imports besides (`warm.imports_of`)."""
        self._node, self._module, self._imports = node, module, imports
        self._closed, self._stopping, self._lock = False, False, threading.Lock()
        self.process = self._start()

    def keep(self) -> None:
        """Start another in the place of one that was killed, until close(): what it had begun dies with it. Blocks."""
        while self.process.wait() < 0:  # one that ends by itself would do so again
            with self._lock:
                if self._closed:
                    return
                self._node.warm_socket.unlink()
                self.process = self._start()
            if self._stopping:  # the one that was asked to is gone
                self.save_and_stop()

    def _start(self) -> subprocess.Popen[bytes]:
        # Bound here, not there: who connects before the imports are done waits, and never finds no socket.
        with socket.socket(socket.AF_UNIX) as listener, (self._node.folder / "warm.log").open("ab") as log:
            listener.bind(str(self._node.warm_socket))
            listener.listen()
            with asks_held():  # inherited: while it imports it cannot answer yet, and must not end
                return subprocess.Popen(
                    [sys.executable, "-m", self._module, str(listener.fileno()), *self._imports],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment_of_training(),
                    pass_fds=[listener.fileno()],
                    process_group=0,
                )

    def save_and_stop(self) -> None:
        """Ask the training processes of this node to save a checkpoint and end, and begin no more."""
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def save(self) -> None:
        """Ask the training processes of this node to save a checkpoint, and to go on."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        """End the warm process and every training process of this node, at once."""
        with self._lock:
            self._closed = True
        # Its children asked the kernel to die with it.
        self.process.kill()
        self.process.wait()


def environment_of_training() -> dict[str, str]:
    """This process's environment, and what training processes have in it before they import anything."""
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "false"),
        # torch.cuda.is_available() must not initialise CUDA: a forked process could not use it any more.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)
    return environment


@contextlib.contextmanager
def asks_held() -> Iterator[None]:
    """Signals to stop or save wait meanwhile, for this thread and for the processes that it starts here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def open_node(fixed: Path | None = None) -> Iterator[Node]:
    """A fresh folder for this machine's part of a run, removed at the end; those of dead runs are removed too.

    `fixed` is for pods: the nodes of a cluster have their folders at the same path, each on a disk of its own.
    """
    _sweep()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(fixed))
        sockets = folder if len(str(folder)) <= _MAX_FOLDER else stack.enter_context(_folder(parent=_SHORT))
        memory = stack.enter_context(_folder(parent=MEMORY)) if os.access(MEMORY, os.W_OK) else None
        node = Node(folder, sockets, memory)
        os.environ.update(node.environment)
        yield node


@contextlib.contextmanager
def _folder(fixed: Path | None = None, parent: str | None = None) -> Iterator[Path]:
    """A folder that is empty at first, held as long as this process lives, and removed at the end."""
    if fixed is not None:
        shutil.rmtree(fixed, ignore_errors=True)
        fixed.mkdir(parents=True)
    folder = fixed or Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with _locked(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hold(folder: Path, as_uploader: bool = False) -> bool:
    """Hold a node's folder for the rest of this process; False when another process does."""
    try:
        descriptor = os.open(folder / (_UPLOADS if as_uploader else _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def only_run(uri: str, waiting: Callable[[], object]) -> Iterator[int]:
    """Hold a run on this machine. Gives the descriptor that holds it, for the run's uploader to hold, too.

    When a run was killed, its uploader may be finishing what was staged, which the next run is to go on from: that is
    waited for, after a call of `waiting`. Raises BusyError when another process runs it.
    """
    file = _run_lock(uri)
    with contextlib.ExitStack() as stack:
        told = False
        while (descriptor := _try(stack, file)) is None:
            if runner(uri) is not None:
                raise BusyError(f"{uri} is being run by another process of this machine; wait for it, or stop it")
            if not told:
                waiting()
            told = True
            time.sleep(_LOOK_AGAIN)
        file.write_text(str(os.getpid()), encoding="ascii")
        # The file stays: removed, it could be locked by one process under its name and by another without.
        yield descriptor


def _try(stack: contextlib.ExitStack, file: Path) -> int | None:
    try:
        return stack.enter_context(_locked(file))
    except BlockingIOError:
        return None


def runner(uri: str) -> int | None:
    """The process of this machine that runs a run; None when there is none."""
    file = _run_lock(uri)
    if not file.exists():
        return None
    with file.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: it keeps nobody from starting for long
            return None
        except BlockingIOError:
            pid = stream.read()
    command = Path(f"/proc/{pid or 0}/cmdline")
    return int(pid) if command.exists() and b"trainyard" in command.read_bytes() else None


def _run_lock(uri: str) -> Path:
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return Path(_SHORT) / f"{_PREFIX}run-{os.getuid()}-{name}.lock"


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[int]:
    # The kernel drops the lock with the process, however it ends. Not inheritable: children may outlive us.
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def _sweep() -> None:
    """Remove the folders of runs that were killed: they may hold gigabytes of staged checkpoints."""
    for folder in {
        found for place in (tempfile.gettempdir(), _SHORT, MEMORY) for found in Path(place).glob(f"{_PREFIX}*")
    }:
        with contextlib.suppress(OSError):  # of another user, held, or gone since it was found
            if folder.is_dir() and folder.stat().st_uid == os.getuid() and (folder / _LOCK).exists():
                with _locked(folder / _LOCK), _locked(folder / _UPLOADS):
                    shutil.rmtree(folder, ignore_errors=True)
