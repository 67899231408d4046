"""What a pod says of itself: pure.

A pod counts by its container `trainer`. A pod with a sidecar runs for as long as the sidecar does, so the phase of the
pod says nothing about the training in it.
"""

from dataclasses import dataclass

from trainyard.spec.podtemplate import TRAINER
from trainyard_operator.api import Object

_SIDECAR_SECONDS = 30
"""Seconds that sidecars have to end after the trainer: Kubernetes' own default. The pod's is the time to save."""


@dataclass(frozen=True)
class Deletion:
    """A pod to delete; with 0 seconds of grace it is forgotten at once."""

    name: str
    uid: str
    grace_seconds: int | None = None


def stage_of(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed: where the trainer of a pod is, whatever other containers do."""
    state = trainer_of(pod).get("state", {})
    ended = state.get("terminated")
    if ended:
        return "Failed" if ended.get("exitCode") else "Succeeded"
    if "waiting" in state and phase_of(pod) == "Running":
        return "Pending"
    return phase_of(pod)


def phase_of(pod: Object) -> str:
    """The phase of the whole pod, sidecars too: Pending, Running, Succeeded or Failed."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def trainer_of(pod: Object) -> Object:
    """The status of the container that trains; empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return next((status for status in statuses if status.get("name") == TRAINER), {})


def containers_of(pod: Object) -> list[Object]:
    """The states of all containers of a pod, init containers first."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def outlives_trainer(pod: Object) -> bool:
    """Whether the trainer of a pod has ended and something else in it still runs."""
    return stage_of(pod) in ("Succeeded", "Failed") and phase_of(pod) == "Running"


def deletion_of(pod: Object, grace_seconds: int | None = None) -> Deletion:
    """What deletes a pod, and no other of its name; without seconds, in the time of its spec."""
    if grace_seconds is None and outlives_trainer(pod):
        grace_seconds = _SIDECAR_SECONDS
    return Deletion(pod["metadata"]["name"], pod["metadata"]["uid"], grace_seconds)


def is_leaving(pod: Object) -> bool:
    """Whether a pod has been deleted and is not gone yet."""
    return "deletionTimestamp" in pod["metadata"]


def is_removed(pod: Object) -> bool:
    """Whether somebody has deleted a pod by force while its trainer ran: it had no time to save."""
    no_time = pod["metadata"].get("deletionGracePeriodSeconds") == 0
    return is_leaving(pod) and no_time and stage_of(pod) == "Running"


def is_asked_to_leave(pod: Object) -> bool:
    """Whether a pod has been deleted and has time to save."""
    # One that is deleted by force is seen leaving too, for a moment, and without any time for it.
    return is_leaving(pod) and pod["metadata"].get("deletionGracePeriodSeconds", 0) > 0
