"""Pods that go, or should be gone: on lost nodes, asked to save first, or held by somebody's finalizer. Pure."""

from datetime import timedelta

from trainyard_operator.api import Object
from trainyard_operator.podstate import Deletion, deletion_of, is_leaving, trainer_of
from trainyard_operator.times import moment_of
from trainyard_operator.world import World

FORCE_AFTER = 10.0
"""Seconds after which a pod on a lost node is taken for dead. The lineage of attempts makes that safe."""
_HELD_AFTER = 5.0
"""Seconds after its end, or that of its grace period, at which a pod that is still there is held by its finalizers."""


def forgotten(world: World) -> tuple[Deletion, ...]:
    """Deletions of pods on nodes that have been lost for long enough: by force, so that their names are free."""
    return tuple(deletion_of(pod, 0) for pod in world.pods if _is_dead(world, pod))


def let_go(world: World, pods: list[Object]) -> tuple[Deletion, ...]:
    """Deletions that let pods save and go; those on lost nodes are forgotten."""
    asked = tuple(deletion_of(pod) for pod in pods if not is_leaving(pod))
    return (*forgotten(world), *asked)


def lost_words(world: World) -> str | None:
    """Which pod is on a lost node, when nothing was reported since; with a spare the others go on."""
    for pod in world.pods:
        since = world.lost_since(pod)
        if since and world.progress.get("reported", 0.0) <= since.timestamp():
            name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
            return f"{name}: node {node} is not ready"
    return None


def held_words(world: World) -> str | None:
    """Which pod should be gone, which finalizers keep it, and what to do; None when there is none such."""
    for pod in world.pods:
        finalizers = pod["metadata"].get("finalizers") or []
        left = _seconds_to_hold(world, pod)
        if finalizers and left is not None and left <= 0:
            name = pod["metadata"]["name"]
            fix = f"their owner must remove them, or you: kubectl edit pod {name}"
            return f"{name} has ended and is kept by its finalizers: {', '.join(finalizers)}. Fix: {fix}"
    return None


def until_held(world: World) -> float | None:
    """Seconds until a pod that goes and has finalizers counts as held by them; None when there is none such."""
    waits = [_seconds_to_hold(world, pod) for pod in world.pods if pod["metadata"].get("finalizers")]
    return min((wait for wait in waits if wait is not None and wait > 0), default=None)


def _is_dead(world: World, pod: Object) -> bool:
    since = world.lost_since(pod)
    return since is not None and (world.now - since).total_seconds() >= FORCE_AFTER


def _seconds_to_hold(world: World, pod: Object) -> float | None:
    """Seconds until a pod that goes should be gone, negative when it should; None when nobody has deleted it."""
    if not is_leaving(pod) or world.lost_since(pod):
        return None
    # Kubernetes sets the time at which the grace period is over.
    over = moment_of(pod["metadata"]["deletionTimestamp"])
    finished = trainer_of(pod).get("state", {}).get("terminated", {}).get("finishedAt")
    if finished:
        asked = over - timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds", 0))
        over = max(asked, moment_of(finished))
    return (over - world.now).total_seconds() + _HELD_AFTER
