"""A strategic overlay: mappings merge, lists merge by Kubernetes' own keys, anything else is replaced.

By which key a list merges is written in the API's types (patchMergeKey and listMapKeys of k8s.io/api/core/v1). A list
without one, such as tolerations or args, is replaced whole, as `kubectl patch` and `kubectl apply` do.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from typing import Any

MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "env": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ports": ("containerPort", "protocol"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""By field of a pod: what tells the entries of its list apart."""
_DEFAULTS = {"protocol": "TCP"}
"""Of a merge key, where it may be left out."""
_ONE_OF = ("env", "volumes")
"""Lists whose entries have one of several fields (a value or its source, a kind of volume): a new one replaces it."""


def overlaid(base: Any, over: Any, field: str = "") -> Any:
    """The base with the overlay on it; neither is changed. A null takes a field away. `field`: the name of both."""
    if isinstance(base, dict) and isinstance(over, dict):
        return _merged(base, over)
    if isinstance(base, list) and isinstance(over, list):
        return _listed(base, over, field)
    return over


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif key in base:
            merged[key] = overlaid(base[key], value, key)
        else:
            merged[key] = value
    return merged


def _listed(base: list[Any], over: list[Any], field: str) -> list[Any]:
    keys = MERGE_KEYS.get(field)
    if keys is None or not all(_can_be_told(item, keys) for item in (*base, *over)):
        return over
    merged = {_identity(item, keys): item for item in base}
    for item in over:
        identity = _identity(item, keys)
        before = merged.get(identity, {})
        if field in _ONE_OF:
            before = {key: value for key, value in before.items() if key in item}
        merged[identity] = _merged(before, item)
    return list(merged.values())


def _can_be_told(item: Any, keys: tuple[str, ...]) -> bool:
    """Whether an entry has what tells it apart."""
    return isinstance(item, dict) and all(isinstance(item.get(key, _DEFAULTS.get(key)), str | int) for key in keys)


def _identity(item: dict[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, _DEFAULTS.get(key)) for key in keys)
