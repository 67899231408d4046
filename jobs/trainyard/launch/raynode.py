"""This pod's part of the job's Ray cluster: the head on index 0, a member elsewhere."""

import contextlib
import itertools
import logging
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

import trainyard
from trainyard.launch import priority, raystart

PORT, DASHBOARD_PORT = 6379, 8265
_MEMORY_BYTES = 100 * 1024 * 1024
"""Of Ray's object store: training data does not pass through it, and Ray wants 75 MiB at least."""
_START = "ray.scripts.scripts"
_JOIN_SECONDS = 600.0
"""How long a member waits for its head to be a node of its own cluster."""
_HEAD_TRIES = 4
"""Starts of a head in its pod, each with twice the time of the one before, until the pod ends for it."""
_CONNECT_TRIES = 20
_SECONDS_ENV = "TRAINYARD_RAY_SECONDS"
"""Environment variable by which `ray start` knows how long its raylet may take."""
_HEAD_ENV = "TRAINYARD_RAY_HEAD"
"""Environment variable by which `ray start` on a member's node knows the head."""
_VERSION_LABEL = "trainyard.dev/version"
"""Label of a Ray node: the version of trainyard that started it."""
_OTHER_VERSION = 78
"""How `ray start` of a member ends when its head has another version; Ray's own codes are small."""
_LOOK_AGAIN_SECONDS = 0.1
_UNHURRIED = "dashboard/dashboard.py"
"""Of the head's processes that for which no training waits."""

_ENDED = re.compile(r"END (\w+)\.\w+ tail \(exit code\(s\)=(.*)\) -----")
"""How `ray start --block` says which of its processes ended, below the tail of that one's log."""


class RayNode:
    """The Ray processes of this pod; they end when one of them does."""

    def __init__(
        self,
        processes: int,
        gpus: int,
        address: str,
        log: Path,
        head: str | None = None,
        seconds: float = raystart.SECONDS,
    ) -> None:
        """`head`: the address of the head, None for the head itself; `seconds`: how long its raylet may take."""
        where = (
            [
                "--head",
                f"--port={PORT}",
                "--dashboard-host=0.0.0.0",
                f"--dashboard-port={DASHBOARD_PORT}",
                "--no-monitor",  # of the autoscaler: the operator makes the nodes
            ]
            if head is None
            else [f"--address={head}:{PORT}"]
        )
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", _START, "start", *where, "--block", f"--node-ip-address={address}",
                    f"--num-cpus={processes}", f"--num-gpus={gpus}", f"--object-store-memory={_MEMORY_BYTES}",
                    "--disable-usage-stats", "--include-log-monitor=False",
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0,
                env={
                    **os.environ, "RAY_START_HOOK": f"{__name__}.{before_start.__name__}", _HEAD_ENV: head or "",
                    _SECONDS_ENV: str(seconds),
                },
            )  # fmt: skip
        if head is None:
            threading.Thread(target=self._let_wait, name="ray's dashboard", daemon=True).start()

    def alive(self) -> bool:
        """Whether all of them run."""
        return self.process.poll() is None

    def last_words(self) -> str:
        """Why it ended by itself, as far as Ray says; empty when it was killed."""
        if (self.process.poll() or 0) <= 0:
            return ""
        text = self._text()
        if ended := _ENDED.findall(text):
            return "; ".join(f"{name}: exit code {code}" for name, code in ended)
        return text.rpartition("\n")[2][:300]

    def refusal(self) -> str | None:
        """Why this node does not join the head; None when it has joined, or may try again."""
        if self.process.poll() != _OTHER_VERSION:
            return None
        return self._text().rpartition("\n")[2]

    def _text(self) -> str:
        return raystart.COLOUR.sub("", self._log.read_text(errors="replace")).strip()

    def _let_wait(self) -> None:
        """While the head starts, on cores that everything wants, the dashboard is not to take any."""
        until = time.monotonic() + _JOIN_SECONDS
        while self.alive() and time.monotonic() < until:
            for process in _tree(self.process.pid):
                with contextlib.suppress(psutil.Error):
                    if _UNHURRIED in " ".join(process.cmdline()):
                        priority.lower(process.pid, priority.LOWEST)
                        return
            time.sleep(_LOOK_AGAIN_SECONDS)  # processes that begin make no event

    def end(self) -> None:
        """Kill them all, and the training processes that hang on them."""
        for process in _tree(self.process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def before_start(parameters: Any, head: bool) -> None:
    """What `ray start` calls with its parameters, which this may change, when it has imported Ray (RAY_START_HOOK)."""
    parameters.ray_client_server_port = None  # a Python process on each head, for clients that no job has
    parameters.labels = {**(parameters.labels or {}), _VERSION_LABEL: trainyard.__version__}
    raystart.be_patient(float(os.environ.get(_SECONDS_ENV, raystart.SECONDS)))
    if head:
        return
    version = await_head(os.environ[_HEAD_ENV], seconds=_JOIN_SECONDS)
    if version not in (None, trainyard.__version__):
        print(
            f"this pod runs trainyard {trainyard.__version__} and the head of its job {version}: give all pods one "
            "image, by a tag that does not move; trainyard suspend and resume starts them together",
            flush=True,
        )
        sys.exit(_OTHER_VERSION)


class Head:
    """The head of the job's Ray cluster. It is started again, with more time, until it has come up once.

    If the pod ended instead, that would count as a restart, and the next pod would have as little time as this one.
    """

    def __init__(self, begin: Callable[[float], RayNode], note: Callable[[str], None]) -> None:
        """`begin`: starts it, with the seconds that its raylet may take."""
        self._begin, self._note = begin, note
        self.is_up, self.is_lost = threading.Event(), threading.Event()
        self.node = begin(raystart.SECONDS)

    def supervise(self) -> str:
        """Restart the head until it has come up once. Blocks. Returns Ray's last words when it is lost for good."""
        for number in range(1, _HEAD_TRIES):
            self.node.process.wait()
            if self.is_up.is_set():
                break
            words = self.node.last_words()
            self._note(f"Ray did not start ({words or 'without words'}); it is tried again, with more time")
            self.node.end()
            self.node = self._begin(raystart.SECONDS * 2**number)
        self.node.process.wait()
        self.is_lost.set()
        return self.node.last_words()


def await_head(address: str, given_up: Callable[[], bool] = lambda: False, seconds: float = math.inf) -> str | None:
    """Wait until the head is a node of its cluster: Ray itself would look again after one or two seconds.

    Returns the head's version of trainyard, or None where it says none or does not come.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    until = time.monotonic() + seconds
    try:
        client = GcsClient(address=f"{address}:{PORT}")
        while not given_up() and time.monotonic() < until:
            known = client.get_all_node_info(timeout=5).values()
            alive = [node for node in known if node.state == GcsNodeInfo.GcsNodeState.ALIVE]
            heads = [node for node in alive if node.is_head_node]
            if heads:
                return dict(heads[0].labels).get(_VERSION_LABEL)
            time.sleep(_LOOK_AGAIN_SECONDS)
    except RayError:
        pass  # Ray says by itself what is wrong
    return None


def let_watch() -> None:
    """In a Ray worker: from now on Ray's processes of this pod only watch; on full cores they must not delay a step."""
    with contextlib.suppress(psutil.Error):
        for process in _ray_processes(psutil.Process().parents()):
            priority.lower(process.pid, priority.WATCHING)


def _ray_processes(parents: list[psutil.Process]) -> list[psutil.Process]:
    """Ray's processes of this node, by the parents of one of its workers, the nearest first."""
    for parent in parents:
        if _START in parent.cmdline():  # in a pod: `ray start` and all below it
            return _tree(parent.pid)
    for raylet, launcher in itertools.pairwise(parents):
        if raylet.name() == "raylet":  # `trainyard run` has started it, beside the GCS
            servers = [each for each in launcher.children() if each.name() in raystart.PROCESSES]
            return [process for server in servers for process in _tree(server.pid)]
    return []


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; nothing when it has ended."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def reachable(address: str, port: int = PORT) -> bool:
    """Whether something listens there; answered within a second."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def resolve(name: str) -> str | None:
    """The address of a name, or None while it has none."""
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def _connect(address: str, name: str, given_up: Callable[[], bool]) -> bool:
    """Connect this process to the head, again when that one dies while it starts. False when given up."""
    import ray
    from ray.job_config import JobConfig

    for number in range(1, _CONNECT_TRIES + 1):
        while not reachable(address) and not given_up():
            time.sleep(_LOOK_AGAIN_SECONDS)  # `ray start` tells nobody when the head listens
        if not given_up():
            await_head(address, given_up)
        if given_up():
            return False
        try:
            ray.init(
                address=f"{address}:{PORT}", log_to_driver=False, logging_level=logging.ERROR, namespace="trainyard",
                job_config=JobConfig(metadata={"trainerjob": name}),
            )  # fmt: skip
        except Exception:  # Ray raises bare Exception, and much else
            if number == _CONNECT_TRIES:
                raise
            ray.shutdown()
            time.sleep(1)
        else:
            return True
    return False


@contextlib.contextmanager
def connected(
    address: str, name: str, nodes: int, given_up: Callable[[], bool], tell: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Connect this process to the head. Gives what waits until so many nodes are there, none stale.

    `name`: of the job, for Ray's own list of jobs.
    """
    if not _connect(address, name, given_up):
        yield lambda: None
        return
    import ray

    def gathered() -> None:
        told = -1
        while not given_up():
            known = [node for node in ray.nodes() if node["Alive"]]
            there = [node for node in known if reachable(node["NodeManagerAddress"], node["NodeManagerPort"])]
            # One that is listed and does not answer is gone, and Ray would still place a worker on it.
            if len(there) >= nodes and len(there) == len(known):
                return
            if len(there) != told:
                told = len(there)
                tell(f"waiting for workers: {told} of {nodes} are there")
            time.sleep(0.2)  # Ray's client has no event for a node that joins

    try:
        yield gathered
    finally:
        ray.shutdown()
