"""`trainyard agent`: the first process of each pod of a job.

Index 0 starts the head of the job's Ray cluster and drives; the others join it by its name, and join again
when it moves, without their pod ending. SIGTERM means: save a checkpoint and go. The end is told by an exit code
and a termination message, so that the operator can decide from the pod alone, also long after.
"""

import contextlib
import functools
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast

import psutil

from trainyard.errors import ExitCode, TrainyardError
from trainyard.launch import orphans, priority, rayenv
from trainyard.launch.drive import Drive, complete
from trainyard.launch.listener import Listener
from trainyard.launch.logs import LogUpload, RankTail, Tee
from trainyard.launch.node import Node, Warm, open_node
from trainyard.launch.progress import plain_display
from trainyard.launch.raynode import Head, RayNode, connected, reachable, resolve
from trainyard.launch.reporter import Reporter
from trainyard.launch.uploads import Uploads
from trainyard.launch.warm import imports_of
from trainyard.plan import plan
from trainyard.plan.facts import gather
from trainyard.protocol.ending import TERMINATION_BYTES, Cause, Ending
from trainyard.spec.manifest import Loaded, load
from trainyard.storage import layout
from trainyard.storage.store import Store, open_store

EXIT_CODES = {
    "Complete": ExitCode.OK,
    "UserError": ExitCode.JOB_FAILED,
    "Infrastructure": ExitCode.RETRY,
    "Stopped": ExitCode.STOPPED,
}
_NODE_FOLDER = Path("/tmp/trainyard-node")  # noqa: S108 - the pod's own
_RAY_LOG = "ray.log"
_HEADLESS_SECONDS = 10.0
"""Without a head for so long, a worker asks the storage whether the job is complete."""


@dataclass(frozen=True)
class Place:
    """Where this pod stands, by its environment (set by the operator)."""

    manifest: str
    index: int
    head: str
    address: str
    run_uri: str
    termination_log: Path
    uid: str = ""
    """Of the TrainerJob."""

    @classmethod
    def here(cls) -> "Place":
        """Of this process. Raises TrainyardError outside a pod of a job."""
        try:
            return cls(
                os.environ["TRAINYARD_MANIFEST"], int(os.environ["TRAINYARD_INDEX"]), os.environ["TRAINYARD_HEAD"],
                os.environ["POD_IP"], os.environ["TRAINYARD_RUN_URI"],
                Path(os.environ.get("TRAINYARD_TERMINATION_LOG", "/dev/termination-log")),
                os.environ.get("TRAINYARD_UID", ""),
            )  # fmt: skip
        except KeyError as error:
            raise TrainyardError(
                f"{error.args[0]} is not set: the agent runs in pods that the operator makes"
            ) from None


def run() -> None:
    """Do this pod's part of the job, and end the process with its exit code."""
    place = Place.here()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # `ckpt save`: it waits until it can be answered
    rayenv.prepare()
    orphans.adopt()
    try:
        loaded = load(place.manifest)
        with open_node(_NODE_FOLDER) as node:
            result = _Agent(place, loaded, node).run()
    except TrainyardError as error:
        result = Ending.of(error)
    tell_end(place.termination_log, result)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: Ray's own way out waits for a cluster that is gone.
    os._exit(EXIT_CODES[result.outcome])


def tell_end(file: Path, ending: Ending) -> None:
    """Write the termination message: the ending as JSON, in the bytes that Kubernetes keeps."""
    with contextlib.suppress(OSError):
        file.write_bytes(ending.encode(TERMINATION_BYTES))


class _Agent:
    def __init__(self, place: Place, loaded: Loaded, node: Node) -> None:
        self.place, self.job, self.node = place, loaded.job, node
        self.warm = Warm(node, imports=imports_of(self.job.spec))
        self.listener, self.uploads = Listener(node), Uploads(node)
        self.stopping = threading.Event()
        self.result: Ending | None = None
        self.log = node.folder / "agent.log"
        out = cast("TextIO", Tee(sys.stderr, self.log))
        self.display, self.ranks = plain_display(self.job.name, out), RankTail(node.folder, out)
        self.reporter = Reporter()

    def run(self) -> Ending:
        """This pod's part to its end, with its log copied to storage as it grows."""
        path = layout.pod_log_path(self.place.index, datetime.now(UTC).strftime("%Y%m%dT%H%M%S"))
        with LogUpload(self._store, path, self.log):
            return self._run()

    def _run(self) -> Ending:
        ended_read, ended_write = socket.socketpair()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGUSR2, lambda *_: self.warm.save())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        thread = threading.Thread(target=self._work, args=(ended_write,), name="agent", daemon=True)
        thread.start()
        threading.Thread(target=self._watch_warm, name=priority.STARTER, daemon=True).start()
        self._show(ended_read)
        self.ranks.close()
        self.warm.close()
        self.uploads.close()
        orphans.end()
        self.reporter.close()  # at last: reports have to keep apart
        assert self.result is not None
        return self.result

    def _work(self, ended: socket.socket) -> None:
        try:
            self.result = self._lead() if self.place.index == 0 else self._follow()
        except TrainyardError as error:
            self.result = Ending.of(error)
        except Exception as error:  # noqa: BLE001 - what Ray raises when its head dies is told, and tried again
            self.result = Ending.fault(Cause.RAY, f"{type(error).__name__}: {str(error).strip()[:500]}")
        finally:
            ended.close()

    def _lead(self) -> Ending:
        workers = self.job.spec.workers
        log = self.node.folder / _RAY_LOG
        begin = functools.partial(RayNode, workers.processes, workers.gpus, self.place.address, log, None)
        head = Head(begin, self._note)
        threading.Thread(target=self._watch_head, args=(head,), daemon=True).start()
        connect = functools.partial(self._connected, head)
        made = plan.plan(self.job, gather(self.job.spec))
        return Drive(
            self.job, made, self._store(), self.node, self.listener.tell, connect, self.uploads.flush,
            workers.processes, self.stopping, self.place.uid,
        ).run()  # fmt: skip

    @contextlib.contextmanager
    def _connected(self, head: Head) -> Iterator[Callable[[], None]]:
        def given_up() -> bool:
            return self.stopping.is_set() or head.is_lost.is_set()

        count = self.job.spec.workers.count
        with connected(self.place.address, self.job.name, count, given_up, self._note) as gathered:
            head.is_up.set()
            yield gathered

    def _watch_head(self, head: Head) -> None:
        words = head.supervise()
        what = "died" if head.is_up.is_set() else "did not start"
        self._lost(f"the head of the Ray cluster {what}. {words}".strip())

    def _watch_warm(self) -> None:
        status = self.warm.process.wait()
        self._lost(
            f"the process that starts the training processes ended with status {status} (killed; out of memory?)"
        )

    def _lost(self, message: str) -> None:
        """This pod has lost what it can do nothing without: it ends, and the operator replaces it."""
        if self.result is None and not self.stopping.is_set():
            tell_end(self.place.termination_log, Ending.fault(Cause.RAY, message))
            os._exit(EXIT_CODES["Infrastructure"])

    def _follow(self) -> Ending:
        workers, since = self.job.spec.workers, time.monotonic()
        while not self.stopping.is_set():
            head = resolve(self.place.head)
            if head is None or not reachable(head):
                # Asked late: a storage that is slow to answer would keep this worker from a head that is there by then.
                if time.monotonic() - since > _HEADLESS_SECONDS and self._complete():
                    return Ending.complete("the job is complete")
                self.stopping.wait(0.5)
                continue
            ray_node = RayNode(workers.processes, workers.gpus, self.place.address, self.node.folder / _RAY_LOG, head)
            while ray_node.alive() and resolve(self.place.head) in (head, None) and not self.stopping.wait(0.5):
                pass
            refusal = ray_node.refusal()
            if refusal is not None:
                return Ending.fault(Cause.RAY, refusal)
            self._let_training_end()
            ray_node.end()
            since = time.monotonic()
        # Pods that are left when the job is complete are deleted, and have done their part: they end with 0.
        return Ending.complete("the job is complete") if self._complete() else Ending.stopped("stopped when asked")

    def _let_training_end(self) -> None:
        """After SIGTERM the training processes are saving: they end by themselves, or with the pod's grace period."""
        if self.stopping.is_set():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.wait_procs(psutil.Process(self.warm.process.pid).children())

    def _complete(self) -> bool:
        try:
            return complete(self._store(), self.job, self.place.uid) is not None
        except TrainyardError:
            return False  # the storage is the driver's to judge: here the bucket may only not be there yet

    def _store(self) -> Store:
        storage = self.job.spec.storage
        return open_store(self.place.run_uri, storage.endpoint, storage.region)

    def _note(self, text: str, wait: bool = True) -> None:
        self.listener.tell({"event": "note", "text": text}, wait)

    def _show(self, ended: socket.socket) -> None:
        watched: list[Listener | socket.socket] = [self.listener, ended]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self.listener in ready:
                if event := self.listener.receive():
                    self.reporter.show(event)
                    with contextlib.suppress(OSError, SystemExit):
                        self.display.show(event)
            elif ended in ready:
                return

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping.set()
        self.warm.save_and_stop()
        self._note("asked to stop: saving a checkpoint", wait=False)
