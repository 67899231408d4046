"""The log of a job as it comes: through Pending and restarts to the end; from storage when the pods are gone."""

import re
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from trainyard.cluster.jobs import condition
from trainyard.cluster.kubectl import JOB, Kubectl
from trainyard.errors import NotFoundError
from trainyard.storage.store import Store

_LOOK_SECONDS = 5.0
_AGENT_LOG = re.compile(r"logs/worker-(\d+)/[^/]+\.log\Z")


def follow(kubectl: Kubectl, name: str, worker: int, tell: Callable[[str], None]) -> Iterator[str]:
    """The lines of a worker's pods, one pod after the other, until the job has ended. `tell` hears why it waits."""
    seen: set[str] = set()
    said = ""
    while True:
        job = kubectl.job(name)
        pod = _pod(kubectl, name, worker)
        if pod is not None and pod["metadata"]["uid"] not in seen and _has_started(pod):
            seen.add(pod["metadata"]["uid"])
            yield from kubectl.lines("logs", "--follow", f"pod/{name}-{worker}")
            continue
        if condition(job, "Finished") or condition(job, "Suspended"):
            return
        status = job.get("status", {})
        words = f"{status.get('state', 'New')}: {status.get('message', '')}".rstrip(": ")
        if words != said:
            said = words
            tell(words)
        _until_changed(kubectl, name)


def now(kubectl: Kubectl, name: str, worker: int, tail: int | None) -> str | None:
    """The log so far of the worker's pod, or None when there is no such pod."""
    pod = _pod(kubectl, name, worker)
    if pod is None or not _has_started(pod):
        return None
    return kubectl.run("logs", f"pod/{name}-{worker}", *([f"--tail={tail}"] if tail is not None else []))


def stored(store: Store, worker: int) -> str:
    """The logs that a worker's pods left in the run's folder, the oldest first. Raises NotFoundError."""
    paths = sorted(
        entry.path
        for entry in store.list("logs")
        if (found := _AGENT_LOG.match(entry.path)) and int(found[1]) == worker
    )
    if not paths:
        raise NotFoundError(f"{store.url('logs')} holds no logs of worker {worker}")
    return "".join(store.get(path).decode(errors="replace") for path in paths)


def _pod(kubectl: Kubectl, name: str, worker: int) -> dict[str, Any] | None:
    try:
        return kubectl.get("pod", f"{name}-{worker}")
    except NotFoundError:
        return None


def _has_started(pod: dict[str, Any]) -> bool:
    states = [status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses", [])]
    return any("running" in state or "terminated" in state for state in states)


def _until_changed(kubectl: Kubectl, name: str) -> None:
    """Return at the next change of the job, or after a while: a pod may start without one."""
    command = kubectl.command("get", JOB, name, "--watch-only", "--output=name")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        started = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.select(_LOOK_SECONDS)
        process.kill()
    time.sleep(max(0.0, 0.5 - (time.monotonic() - started)))  # a watch that is refused must not spin
