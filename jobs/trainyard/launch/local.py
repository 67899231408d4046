"""`trainyard run`: a job on this machine, from the manifest to the end.

The main thread owns signals and the screen; a second thread drives. The warm process starts first, because
its imports are the longest wait, and everything else happens beside it.
"""

import contextlib
import functools
import logging
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.errors import ExitCode, JobError, ManifestError
from trainyard.launch import orphans, priority, rayenv, raystart
from trainyard.launch.drive import Drive
from trainyard.launch.listener import Listener
from trainyard.launch.node import Node, Warm, only_run, open_node
from trainyard.launch.progress import Display, Silent, open_display
from trainyard.launch.uploads import Uploads
from trainyard.launch.warm import imports_of
from trainyard.plan import inputs, plan
from trainyard.plan.checks import check
from trainyard.plan.facts import gather
from trainyard.plan.plan import Plan
from trainyard.protocol.ending import Ending
from trainyard.spec.manifest import Loaded
from trainyard.spec.model import TrainerJob
from trainyard.storage import layout
from trainyard.storage.store import Store, open_store

_WAITING = "waiting for the run before, which was killed: its last checkpoint is still being uploaded"


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    exit_code: ExitCode
    final: str | None = None
    metrics: dict[str, float] | None = None
    message: str = ""
    at_once: bool = False
    """Whether the process must end as it is: a thread of it is still inside Ray."""


def run(loaded: Loaded, quiet: bool = False) -> Finished:
    """Run the job of a manifest. Raises TrainyardError for what is wrong before anything is trained."""
    job = loaded.job
    if problems := [*check(job.spec), *inputs.check(job.spec)]:
        raise loaded.error(problems)
    if job.spec.suspend:
        raise ManifestError(f"{loaded.source}: spec.suspend is true, so nothing runs; set it to false")
    _check_gpus(job)
    facts = gather(job.spec)
    if facts.problem is not None:
        raise JobError(facts.problem)
    made = plan.plan(job, facts)
    store = open_run(job)
    orphans.adopt()
    rayenv.prepare(one_node=True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # whom `ckpt save` asks when there is nothing to save any more
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # and not yet: it waits
    waiting = functools.partial(print, f"{job.name}: {_WAITING}", file=sys.stderr)
    with only_run(store.uri, waiting) as held, open_node() as node:
        return _Session(job, made, store, node, open_display(job.name, quiet), held).run()


def open_run(job: TrainerJob) -> Store:
    """The run's folder in storage."""
    storage = job.spec.storage
    return open_store(f"{storage.uri.rstrip('/')}/{job.name}", storage.endpoint, storage.region)


class _Session:
    def __init__(self, job: TrainerJob, made: Plan, store: Store, node: Node, display: Display, held: int) -> None:
        self.job, self.plan, self.store, self.node, self.display = job, made, store, node, display
        self.warm = Warm(node, imports=imports_of(job.spec))
        self.listener, self.uploads = Listener(node), Uploads(node, [held])
        self.stopping, self.killed = threading.Event(), threading.Event()
        self.result: Ending | None = None
        self.error: BaseException | None = None
        self.metrics: dict[str, float] = {}
        self.lost = ""
        """Which of Ray's processes has died; empty while all live."""
        self.ending = socket.socketpair()
        """The first can be read when the driver's thread has ended, or can do nothing any more."""

    def run(self) -> Finished:
        thread = threading.Thread(target=self._drive, name="driver", daemon=True)
        try:
            with self._signals():
                thread.start()
                threading.Thread(target=self.warm.keep, name=priority.STARTER, daemon=True).start()
                self._show()
        finally:
            with contextlib.suppress(OSError, SystemExit):
                self.display.close()
            self.warm.close()
            self.uploads.close(at_once=self.killed.is_set())
        if self.killed.is_set():
            lost = (
                "stopped at once; steps since the last committed checkpoint are lost, also those that were staged. "
                "Run the same command again to go on from it"
            )
            return Finished(ExitCode.INTERRUPTED, message=lost, at_once=True)
        if self.lost:
            died = (
                f"Ray's {self.lost} died (killed; out of memory?), and the training processes with it; run the same "
                "command again to go on from what was committed or staged"
            )
            return Finished(ExitCode.JOB_FAILED, message=died, at_once=True)
        orphans.end()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self._finished(self.result)

    def _finished(self, result: Ending) -> Finished:
        if result.outcome == "Complete":
            return Finished(ExitCode.OK, self.store.url(layout.FINAL), self.metrics, "")
        if result.outcome == "Stopped":
            text = f"{result.message} (step {result.step}); run the same command again to go on"
            return Finished(ExitCode.INTERRUPTED, message=text)
        where = f"\n  at:   {result.where}" if result.where else ""
        step = f"\n  step: {result.step}" if result.step else ""
        logs = f"\n  logs: {self.store.url('logs')}"
        return Finished(ExitCode.JOB_FAILED, message=f"{result.message}{where}{step}{logs}")

    def _drive(self) -> None:
        try:
            connect = functools.partial(_ray, self.job, self.node, self._lose, self._note, self.stopping.is_set)
            drive = Drive(
                self.job, self.plan, self.store, self.node, self.listener.tell, connect, self.uploads.flush,
                self.plan.world_size.value, self.stopping,
            )  # fmt: skip
            self.result = drive.run()
        except raystart.RayStartError as error:
            if self.stopping.is_set():
                self.result = Ending.stopped("stopped before the training processes began")
            else:
                self.error = error
        except BaseException as error:  # noqa: BLE001 - a thread's error is raised again by the main thread
            self.error = error
        finally:
            self.ending[1].close()

    def _note(self, text: str) -> None:
        self.listener.tell({"event": "note", "text": text})

    def _lose(self, name: str) -> None:
        """One of Ray's processes has died. Ray will end this one: within two seconds for a raylet's death."""
        self.lost = name
        with contextlib.suppress(OSError):  # the driver's thread has just ended
            self.ending[1].shutdown(socket.SHUT_WR)

    def _show(self) -> None:
        """Show events until the driver's thread ends, or can do so no more."""
        ending = self.ending[0]
        watched: list[Listener | socket.socket] = [self.listener, ending]
        while not self.killed.is_set():
            ready, _, _ = select.select(watched, [], [], 1.0)
            if self.listener in ready:
                if event := self.listener.receive():
                    if event["event"] == "final":
                        self.metrics = event["metrics"] or {}
                    self._display(event)
            elif ending in ready:
                return

    def _display(self, event: dict[str, Any]) -> None:
        try:
            self.display.show(event)
        except (OSError, SystemExit):  # rich's way to say that the pipe is broken
            self.display = Silent()  # whoever looked on has gone; that is no reason to stop training

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, lambda *_: self.warm.save())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        if self.stopping.is_set():
            if number == signal.SIGINT:  # of a person; timeout(1) and others ask twice by themselves
                self.killed.set()
            return
        self.stopping.set()
        self.warm.save_and_stop()
        text = "saving a checkpoint, then stopping; Ctrl-C now stops at once"
        self.listener.tell({"event": "note", "text": text}, wait=False)


@contextlib.contextmanager
def _ray(
    job: TrainerJob,
    node: Node,
    lost: Callable[[str], None],
    note: Callable[[str], None],
    given_up: Callable[[], bool],
) -> Iterator[Callable[[], None]]:
    """Ray of this machine. `lost` is called with the name of one of its processes that died before its time;
    `given_up` says whether the run is asked to stop before Ray has started.

    Raises RayStartError.
    """
    import ray

    # It would call it an error that nobody waits for the dashboard (rayenv).
    logging.getLogger("ray._private.services").setLevel(logging.CRITICAL)
    workers = job.spec.workers
    # Whoever asks a run to stop may ask all of its processes (timeout, Slurm, systemd, a closed terminal). Ray's must
    # not hear it, for without them this one would end before it has saved; they inherit what this thread blocks.
    if sys.platform == "linux":  # elsewhere it is with SIGTERM that Ray ends them when this process is killed
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
    folder = node.sockets / "ray"
    begin = functools.partial(
        ray.init,
        address="local",
        num_cpus=workers.count * workers.processes,
        num_gpus=workers.count * workers.gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="trainyard",
        _temp_dir=str(folder),
    )
    raystart.start(begin, folder, note, given_up)
    ended = threading.Event()
    _watch_processes(ended, lost)
    try:
        yield lambda: None
    finally:
        ended.set()
        # Ray would wait for the end of processes that it asks with SIGTERM; orphans.end() ends them.
        ray._private.worker._global_node = None
        ray.shutdown()


def _watch_processes(ended: threading.Event, lost: Callable[[str], None]) -> None:
    """Call `lost` with the name of a Ray process that dies before `ended` is set."""
    import ray

    started: Any = ray._private.worker._global_node
    for name in raystart.PROCESSES:
        process = started.all_processes[name][0].process
        watch = functools.partial(_watch, process, ended, functools.partial(lost, name))
        threading.Thread(target=watch, name=f"{name}'s watch", daemon=True).start()


def _watch(process: "subprocess.Popen[bytes]", ended: threading.Event, lost: Callable[[], None]) -> None:
    process.wait()
    if not ended.is_set():
        lost()


def _check_gpus(job: TrainerJob) -> None:
    wanted = job.spec.workers.count * job.spec.workers.gpus
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if wanted > there:
        raise JobError(
            f"spec.workers wants {job.spec.workers.count} × {job.spec.workers.gpus} GPUs and this machine has {there}. "
            "Set workers.gpus: 0 to train on CPU here (--set workers.gpus=0), or apply the job to a cluster"
        )
