"""What a pod says of itself, in its state and in its agent's last words: pure."""

import json
from dataclasses import dataclass

from trainyard_operator import reasons
from trainyard_operator.api import Object

_CONTAINER = "trainer"
_RETRY, _STOPPED, _FAILED = 75, 143, 5
"""Exit codes of `trainyard agent` (README.md)."""
_KILLED = 137
"""128 and SIGKILL."""
_NOT_BEGUN = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class Deletion:
    """A pod to delete; with 0 seconds of grace it is forgotten at once."""

    name: str
    uid: str
    grace_seconds: int | None = None


@dataclass(frozen=True)
class Failure:
    """A pod that ended without the job being complete."""

    pod: Object
    reason: str
    message: str
    counts: bool
    final: bool = False


def failure_of(pod: Object) -> Failure | None:
    """Why a pod has failed, or None when it has not."""
    if phase_of(pod) != "Failed":
        return None
    end, name = end_of(pod), pod["metadata"]["name"]
    code, cause = end.get("exitCode"), end.get("reason", "")
    if code == _KILLED and "outcome" not in end:  # its last line is not why
        end["message"] = "killed (SIGKILL) without a word"
    where = f" ({end['where']})" if end.get("where") else ""
    words = f"{end.get('message') or cause or pod['status'].get('message') or 'ended without a word'}{where}"
    if code == _FAILED:
        return Failure(pod, reasons.JOB_FAILED, words, counts=False, final=True)
    if code == _STOPPED or any(c["type"] == "DisruptionTarget" for c in pod["status"].get("conditions", [])):
        return Failure(pod, reasons.EVICTED, f"{name} was asked to go", counts=False)
    if cause == "OOMKilled":
        limit = _memory_limit(pod)
        return Failure(pod, reasons.OOM, f"{name} was killed: out of memory (limit {limit})", counts=True)
    return Failure(pod, reasons.POD_LOST, words if code == _RETRY else f"exit code {code}: {words}", counts=True)


def end_of(pod: Object) -> Object:
    """How the pod's container ended: exit code and reason, with the agent's own words where it left any."""
    for container in pod["status"].get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended and container.get("name", _CONTAINER) == _CONTAINER:
            try:
                told = json.loads(ended.get("message", ""))
            except ValueError:
                told = None
            if not isinstance(told, dict):  # died without a word of its own: the last line of its log
                told = {"message": (ended.get("message") or "").strip().rpartition("\n")[2][:1000]}
            return {"exitCode": ended.get("exitCode"), "reason": ended.get("reason", ""), **told}
    return _end_before(pod)


def _end_before(pod: Object) -> Object:
    """How an init container of the job's overlay ended a pod whose trainer never began."""
    for container in pod["status"].get("initContainerStatuses", []):
        ended, name = container.get("state", {}).get("terminated"), container["name"]
        if ended and ended.get("exitCode"):
            words = (ended.get("message") or ended.get("reason") or "").strip()[:1000]
            look = f"kubectl logs {pod['metadata']['name']} -c {name}"
            return {"exitCode": ended["exitCode"], "message": f"init container {name} failed: {words} ({look})"}
    return {}


def why_waiting(pod: Object) -> tuple[str, str] | None:
    """Why a pod does not run, as a reason and a message, or None."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if phase_of(pod) != "Pending":
        return None
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            if gates := ", ".join(gate["name"] for gate in pod["spec"].get("schedulingGates", [])):
                return reasons.GATED, f"{name} is not to be scheduled before its gates are removed: {gates}"
            return reasons.UNSCHEDULABLE, f"{name}: {condition.get('message', '')}"
    for container in containers_of(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            return reasons.IMAGE, f"{name}: {container.get('image')}: {waiting.get('message', '')}"
        if reason in ("CreateContainerConfigError", "CreateContainerError"):
            return reasons.CONTAINER_CONFIG, f"{name}: {waiting.get('message', '')}"
    return None


def silent_since(pod: Object) -> str | None:
    """Since when nobody has said why a pod does not begin, as Kubernetes writes a time; None for any other pod.

    No scheduler has looked at it, or its node has not made a container yet.
    """
    status = pod.get("status", {})
    states = [each.get("state", {}) for each in containers_of(pod)]
    begun = any(state.get("waiting", {}).get("reason") not in _NOT_BEGUN for state in states)
    if phase_of(pod) != "Pending" or begun or is_leaving(pod) or why_waiting(pod):
        return None
    # The first is set by the kubelet when it takes the pod.
    since: str | None = status.get("startTime") or pod["metadata"].get("creationTimestamp")
    return since


def why_silent(pod: Object) -> str:
    """What a pod that nobody says anything of may wait for, and where that stands."""
    name = pod["metadata"]["name"]
    if not pod["spec"].get("nodeName"):
        scheduler = pod["spec"].get("schedulerName", "default-scheduler")
        return f"no scheduler has looked at {name}: does one run that is called {scheduler}?"
    what = "its image, or for a volume, Secret or ConfigMap"
    return f"{name} waits for {what}: kubectl describe pod {name} says for which"


def containers_of(pod: Object) -> list[Object]:
    """The states of all containers of a pod, init containers first."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def deletion_of(pod: Object, grace_seconds: int | None = None) -> Deletion:
    """What deletes a pod, and no other of its name; without seconds, in the time of its spec."""
    return Deletion(pod["metadata"]["name"], pod["metadata"]["uid"], grace_seconds)


def phase_of(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_leaving(pod: Object) -> bool:
    """Whether a pod has been deleted and is not gone yet."""
    return "deletionTimestamp" in pod["metadata"]


def is_asked_to_leave(pod: Object) -> bool:
    """Whether a pod has been deleted and has time to save."""
    # One that is deleted by force is seen leaving too, for a moment, and without any time for it.
    return is_leaving(pod) and pod["metadata"].get("deletionGracePeriodSeconds", 0) > 0


def _memory_limit(pod: Object) -> str:
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return str(limits.get("memory", "none: the node's"))
