"""The log of a job as it comes: through Pending and restarts to the end; from storage when the pods are gone."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from trainyard.cluster.jobs import condition, refused, unseen
from trainyard.cluster.jobs import now as clock
from trainyard.cluster.kubectl import Kubectl
from trainyard.errors import ManifestError, NotFoundError
from trainyard.spec.podtemplate import TRAINER
from trainyard.storage import segments
from trainyard.storage.store import Store

_PAUSE = 0.5
_TRAINER = f"--container={TRAINER}"
"""A sidecar that something puts into the pod may come before the trainer."""
_AGENT_LOG = re.compile(r"logs/worker-(\d+)/[^/]+\.log\Z")


def follow(kubectl: Kubectl, name: str, worker: int, tell: Callable[[str], None]) -> Iterator[str]:
    """The lines of a worker's pods, one pod after the other, until the job has ended. `tell` hears why it waits."""
    uid, after, over, said = "", "", False, ""
    while True:
        job = kubectl.job(name)
        pod = kubectl.pod(name, worker)
        if pod is not None and pod["metadata"]["uid"] != uid:
            uid, after, over = pod["metadata"]["uid"], "", False
        if pod is not None and not over and _has_started(pod):
            before = after
            for stamp, line in _lines(kubectl, f"pod/{name}-{worker}", after):
                after = stamp
                yield line
            over = _has_ended(kubectl.pod(name, worker), uid)  # else only the connection has ended
            if not over:
                time.sleep(_PAUSE)
            if over or after != before:
                continue
        if message := refused(job):
            raise ManifestError(message)
        if condition(job, "Finished") or condition(job, "Suspended"):
            return
        status = job.get("status", {})
        state = f"{status.get('state', 'New')}: {status.get('message', '')}".rstrip(": ")
        warning = unseen(job, clock())
        kind = state if warning is None else "unseen"  # it counts the seconds, and is said once
        if kind != said:
            said = kind
            tell(warning or state)
        kubectl.until_changed(name)


def now(kubectl: Kubectl, name: str, worker: int, tail: int | None) -> str | None:
    """The log so far of the worker's pod, or None when there is no such pod."""
    pod = kubectl.pod(name, worker)
    if pod is None or not _has_started(pod):
        return None
    return kubectl.run("logs", f"pod/{name}-{worker}", _TRAINER, *([f"--tail={tail}"] if tail is not None else []))


def stored(store: Store, worker: int) -> str:
    """The logs that a worker's pods left in the run's folder, the oldest first. Raises NotFoundError."""
    folder = f"logs/worker-{worker}"
    paths = [entry.path for entry in store.list(folder) if _AGENT_LOG.match(entry.path)]
    if not paths:
        raise NotFoundError(f"{store.url('logs')} holds no logs of worker {worker}")
    return "".join(segments.read(store, path).decode(errors="replace") for path in paths)


def _lines(kubectl: Kubectl, pod: str, after: str) -> Iterator[tuple[str, str]]:
    """The lines of a pod's log after a moment, as they come, each with its time."""
    since = [f"--since-time={after}"] if after else []
    for each in kubectl.lines("logs", "--follow", "--timestamps", _TRAINER, *since, pod):
        stamp, _, line = each.partition(" ")
        if stamp > after:  # the API server counts whole seconds
            yield stamp, line


def _has_ended(pod: dict[str, Any] | None, uid: str) -> bool:
    """Whether nothing more comes from the pod of a uid."""
    if pod is None or pod["metadata"]["uid"] != uid:
        return True
    return "terminated" in _trainer_state(pod) or str(pod.get("status", {}).get("phase")) in ("Succeeded", "Failed")


def _has_started(pod: dict[str, Any]) -> bool:
    state = _trainer_state(pod)
    return "running" in state or "terminated" in state


def _trainer_state(pod: dict[str, Any]) -> dict[str, Any]:
    """The state of the container that trains, whatever sidecars do; empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return next((status.get("state", {}) for status in statuses if status.get("name") == TRAINER), {})
