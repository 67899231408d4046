"""This pod's part of the job's Ray cluster: the head on index 0, a member elsewhere."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil

PORT, DASHBOARD_PORT = 6379, 8265
_MEMORY_BYTES = 100 * 1024 * 1024
"""Of Ray's object store: training data does not pass through it, and Ray wants 75 MiB at least."""
_NICE = 10


class RayNode:
    """The Ray processes of this pod; they end when one of them does."""

    def __init__(self, processes: int, gpus: int, address: str, head: str | None = None) -> None:
        where = (
            ["--head", f"--port={PORT}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD_PORT}"]
            if head is None
            else [f"--address={head}:{PORT}"]
        )
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block", f"--node-ip-address={address}",
                f"--num-cpus={processes}", f"--num-gpus={gpus}", f"--object-store-memory={_MEMORY_BYTES}",
                "--disable-usage-stats", "--include-log-monitor=False",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            # They only watch: on full cores they must not interrupt a step.
            preexec_fn=lambda: os.nice(_NICE) and None,
        )  # fmt: skip

    def alive(self) -> bool:
        """Whether all of them run."""
        return self.process.poll() is None

    def end(self) -> None:
        """Kill them all, and the training processes that hang on them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            for process in [top, *top.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


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


@contextlib.contextmanager
def connected(
    address: str, nodes: int, given_up: Callable[[], bool], tell: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Connect this process to the head. Gives what waits until so many nodes are there, none stale."""
    while not reachable(address) and not given_up():
        time.sleep(0.1)  # `ray start` tells nobody when the head listens
    import ray

    ray.init(address=f"{address}:{PORT}", log_to_driver=False, logging_level=logging.ERROR, namespace="trainyard")

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
