"""Why a pod does not run yet, in words: pure."""

from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.podstate import containers_of, is_leaving, stage_of

_NOT_BEGUN = ("ContainerCreating", "PodInitializing")
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_NO_CONFIG = ("CreateContainerConfigError", "CreateContainerError")


def why_waiting(pod: Object) -> tuple[str, str] | None:
    """Why a pod does not run, as a reason and a message, or None."""
    if stage_of(pod) != "Pending":
        return None
    name = pod["metadata"]["name"]
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            gates = ", ".join(gate["name"] for gate in pod["spec"].get("schedulingGates", []))
            if gates:
                return reasons.GATED, f"{name} is not to be scheduled before its gates are removed: {gates}"
            return reasons.UNSCHEDULABLE, f"{name}: {condition.get('message', '')}"
    for container in containers_of(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason, words = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _NO_IMAGE:
            return reasons.IMAGE, f"{name}: {container.get('image')}: {words}"
        if reason in _NO_CONFIG:
            return reasons.CONTAINER_CONFIG, f"{name}: {words}"
        if reason == "CrashLoopBackOff":  # of a sidecar that must run before the trainer begins
            sidecar = container.get("name")
            look = f"kubectl logs {name} -c {sidecar} --previous"
            return reasons.SIDECAR, f"{name}: container {sidecar} ends again and again ({look})"
    return None


def silent_since(pod: Object) -> str | None:
    """Since when nobody has said why a pod does not begin, as Kubernetes writes a time; None for any other pod.

    No scheduler has looked at it, or its node has not made a container yet.
    """
    states = [each.get("state", {}) for each in containers_of(pod)]
    begun = any(state.get("waiting", {}).get("reason") not in _NOT_BEGUN for state in states)
    if stage_of(pod) != "Pending" or begun or is_leaving(pod) or why_waiting(pod):
        return None
    # The first is set by the kubelet when it takes the pod.
    since: str | None = pod.get("status", {}).get("startTime") or pod["metadata"].get("creationTimestamp")
    return since


def why_silent(pod: Object) -> str:
    """What a pod that nobody says anything of may wait for, and where that stands."""
    name = pod["metadata"]["name"]
    if not pod["spec"].get("nodeName"):
        scheduler = pod["spec"].get("schedulerName", "default-scheduler")
        return f"no scheduler has looked at {name}: does one run that is called {scheduler}?"
    what = "its image, or for a volume, Secret or ConfigMap"
    return f"{name} waits for {what}: kubectl describe pod {name} says for which"
