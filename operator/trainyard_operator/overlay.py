"""A strategic overlay: mappings merge, lists merge by their key, anything else is replaced.

The merge keys are those of Kubernetes' strategic merge patch for the fields of a pod.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from typing import Any

_KEYS = ("name", "mountPath", "containerPort", "key", "ip")


def overlaid(base: Any, over: Any) -> Any:
    """The base with the overlay on it; neither is changed. A null takes a field away."""
    if isinstance(base, dict) and isinstance(over, dict):
        merged = {key: value for key, value in base.items() if key not in over}
        kept = {key: value for key, value in over.items() if value is not None}
        return merged | {key: overlaid(base[key], value) if key in base else value for key, value in kept.items()}
    if isinstance(base, list) and isinstance(over, list):
        key = next(
            (key for key in _KEYS if over and all(isinstance(item, dict) and key in item for item in over)), None
        )
        if key is None or not all(isinstance(item, dict) and key in item for item in base):
            return over
        known = {item[key]: item for item in base}
        return list((known | {item[key]: overlaid(known.get(item[key], {}), item) for item in over}).values())
    return over
