"""What `workers.template` may change of a pod, and what it may not: whatever breaks how a pod of a job runs.

The operator merges the overlay into the pods that it makes. An overlay can say anything that a pod can, so each field
that the job relies on has a row here, with the reason and what to do instead. Any other field is the API server's to
judge.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from trainyard.spec.yamltext import Path

Problem = tuple[Path, str]
"""Where in the overlay, and what is wrong with it."""

TRAINER = "trainer"
"""Name of the container that trains."""
CONFIG_FOLDER = "/etc/trainyard"
"""Where a pod finds the manifest, the certificate authorities and Ray's token."""
TOKEN_FOLDER = "/var/run/secrets/trainyard"  # noqa: S105 - a folder
"""Where a pod finds the token by which the operator knows it."""
SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - the pod's own
"""Where a pod writes."""
LABELS = tuple(f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "part-of", "managed-by"))
"""Labels of everything that the operator makes."""

_OURS = re.compile(r"trainyard\.dev/")
_PORTS = (6379, 8265, 52365)
"""Where Ray listens in each pod: its store, its dashboard, the dashboard's agent."""
_WORKER_PORTS = range(10002, 20000)
"""Where Ray's workers listen (ray start --min-worker-port, --max-worker-port)."""
_ENVIRONMENT = (
    "POD_IP", "TRAINYARD_INDEX", "TRAINYARD_HEAD", "TRAINYARD_RUN_URI", "TRAINYARD_UID", "TRAINYARD_MANIFEST",
    "TRAINYARD_TERMINATION_LOG", "KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_CA_CERT",
    "KUBEFLOW_TRAINER_SERVER_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH",
)  # fmt: skip
"""What the operator and the image tell the agent."""


class Rule(NamedTuple):
    """A field, and when it breaks a pod."""

    breaks: Callable[[Any], bool]
    message: str
    """Why, and what to do instead."""


def _always(value: Any) -> bool:
    return True


def _is_null(value: Any) -> bool:
    return value is None


def _other_than(allowed: object) -> Callable[[Any], bool]:
    return lambda value: value != allowed


def _refused(message: str) -> Rule:
    return Rule(_always, message)


def _kept(message: str) -> Rule:
    return Rule(_is_null, message)


_REPLACED = "the operator replaces a pod that has ended, and the kubelet must not start it: remove it"
_AGENT = "the operator starts the agent there, which runs the training"
_WATCHED = "a probe that fails would kill the training: spec.restart.hangSeconds finds a hang"

POD_RULES: dict[str, Rule] = {
    "restartPolicy": Rule(_other_than("Never"), _REPLACED),
    "hostname": _refused("the workers find the head by its host name: remove it"),
    "subdomain": _refused("the workers find the head by its host name: remove it"),
    "setHostnameAsFQDN": Rule(
        _other_than(False), "the kernel takes 64 characters, and the name of a pod in its domain has more: remove it"
    ),
    "hostNetwork": Rule(_other_than(False), "two pods on one node would take each other's ports: remove it"),
    "hostPID": Rule(_other_than(False), "the agent ends processes that nobody waits for: remove it"),
    "shareProcessNamespace": Rule(
        _other_than(False), "the agent must be the first process of its container: remove it"
    ),
    "nodeName": _refused("a pod could not leave that node when it is lost: use nodeSelector"),
    "activeDeadlineSeconds": _refused(
        "the kubelet would end pods one by one, as if they had failed: set spec.activeDeadlineSeconds"
    ),
    "terminationGracePeriodSeconds": Rule(
        lambda value: not isinstance(value, int) or value < 1,
        "a pod that is asked to go needs time to save: give 1 or more",
    ),
    "automountServiceAccountToken": Rule(
        _other_than(False), "pods of a job hold no Kubernetes rights: mount a projected token by volumes"
    ),
    "dnsPolicy": Rule(lambda value: value == "Default", "the node's DNS does not know the head's name: remove it"),
    "ephemeralContainers": _refused("a new pod cannot have one: kubectl debug adds it to a pod that runs"),
    "containers": _kept("without its containers a pod does nothing: name those to change or add"),
    "volumes": _kept("the operator's own volumes would go: name those to change or add"),
}

TRAINER_RULES: dict[str, Rule] = {
    "command": _refused(f"{_AGENT}: use spec.script for a program of your own"),
    "args": _refused(f"{_AGENT}: use spec.script.args for arguments of your own"),
    "image": _kept("a container needs an image: remove the field to keep the operator's"),
    "env": _kept("the operator's own variables would go: name those to add"),
    "volumeMounts": _kept("the operator's own mounts would go: name those to add"),
    "livenessProbe": _refused(f"{_WATCHED}; remove it"),
    "startupProbe": _refused(f"{_WATCHED}; remove it"),
    "lifecycle": _refused("the agent saves when the pod is asked to go, and a hook would take its time: remove it"),
    "restartPolicy": _refused(_REPLACED),
    "restartPolicyRules": _refused(_REPLACED),
    "terminationMessagePath": _refused("the operator reads there why a pod has ended: remove it"),
    "terminationMessagePolicy": Rule(
        _other_than("FallbackToLogsOnError"), "the operator reads the last line of a pod that died: remove it"
    ),
}  # fmt: skip


def check(template: Any) -> Iterator[Problem]:
    """What in an overlay breaks how a pod of a job runs, each with its path in the overlay, the reason and the fix."""
    if not isinstance(template, dict):
        return  # the manifest's model says so
    for key in template:
        if key not in ("metadata", "spec"):
            yield (key,), "a pod template has metadata and spec: move it below spec"
    yield from _directives(template, ())
    yield from _mapping(template, "metadata", _metadata)
    yield from _mapping(template, "spec", _spec)


def _mapping(
    parent: dict[str, Any], key: str, rules: Callable[[dict[str, Any]], Iterator[Problem]]
) -> Iterator[Problem]:
    value = parent.get(key, {})
    if not isinstance(value, dict):
        yield (key,), "it is a mapping (key: value)"
        return
    for path, message in rules(value):
        yield (key, *path), message


def _directives(value: Any, path: Path) -> Iterator[Problem]:
    """What only a patch has: the overlay is merged by the operator, and null takes a field away."""
    if isinstance(value, dict):
        for key, child in value.items():
            if str(key).startswith("$"):
                yield (*path, key), "directives of patches are not taken: write null to take a field away"
            yield from _directives(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _directives(child, (*path, index))


def _metadata(metadata: dict[str, Any]) -> Iterator[Problem]:
    for key, value in metadata.items():
        if key not in ("labels", "annotations"):
            yield (key,), "the operator makes the pods and their metadata: only labels and annotations can be added"
            continue
        if not isinstance(value or {}, dict):
            yield (key,), "it is a mapping (key: value)"
            continue
        for name in value or {}:
            if _OURS.match(str(name)) or name in LABELS:
                yield (key, name), "the operator knows its pods by it: choose another name"


def _spec(spec: dict[str, Any]) -> Iterator[Problem]:
    yield from _broken(spec, POD_RULES)
    for path, volume in _items(spec, "volumes"):
        if volume.get("name") in ("job", "token"):
            yield (*path, "name"), f"the volume {volume['name']} is the operator's own: choose another name"
    for path, container in _items(spec, "initContainers"):
        if container.get("name") == TRAINER:
            yield (*path, "name"), f"{TRAINER} is the container that trains: choose another name"
        yield from _under(path, _ports(container))
    for path, container in _items(spec, "containers"):
        if container.get("name") == TRAINER:
            yield from _under(path, _trainer(container))
            continue
        if "image" not in container:
            yield path, f"a container needs an image; the one that trains is called {TRAINER}"
        yield from _under(path, _ports(container))
    for key in ("containers", "initContainers", "volumes"):
        yield from _unnamed(spec, key)


def _unnamed(parent: dict[str, Any], key: str) -> Iterator[Problem]:
    """Entries of a list that has a name in each, without which they cannot be merged."""
    items = parent.get(key)
    if items is None:
        return
    if not isinstance(items, list):
        yield (key,), "it is a list, of mappings with a name each"
        return
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            yield (key, index), "it is a mapping with a name"


def _trainer(container: dict[str, Any]) -> Iterator[Problem]:
    yield from _broken(container, TRAINER_RULES)
    for path, variable in _items(container, "env"):
        if variable.get("name") in _ENVIRONMENT:
            yield (*path, "name"), f"the operator sets {variable['name']}: remove it"
    for path, mount in _items(container, "volumeMounts"):
        yield from _under(path, _mount(mount))


def _mount(mount: dict[str, Any]) -> Iterator[Problem]:
    """A mount that hides or changes what the operator mounts."""
    place = str(mount.get("mountPath", "")).rstrip("/") or "/"
    ours = [folder for folder in (CONFIG_FOLDER, TOKEN_FOLDER) if _overlaps(place, folder) or _overlaps(folder, place)]
    if ours:
        yield ("mountPath",), f"the operator mounts {ours[0]}, which the agent reads: choose another path"
    for folder in SCRATCH:
        if place == folder and mount.get("readOnly"):
            yield ("readOnly",), f"training writes to {folder}: remove readOnly"


def _overlaps(upper: str, lower: str) -> bool:
    """Whether a path is another one, or a folder above it."""
    return lower == upper or lower.startswith(f"{upper.rstrip('/')}/")


def _ports(container: dict[str, Any]) -> Iterator[Problem]:
    """Ports of a sidecar at which Ray listens: all containers of a pod share them."""
    for path, port in _items(container, "ports"):
        number = port.get("containerPort")
        if number in _PORTS or number in _WORKER_PORTS:
            yield (*path, "containerPort"), f"Ray listens at {number} in this pod: choose another port"


def _broken(fields: dict[str, Any], rules: dict[str, Rule]) -> Iterator[Problem]:
    for key, value in fields.items():
        rule = rules.get(key)
        if rule is not None and rule.breaks(value):
            yield (key,), rule.message


def _items(parent: dict[str, Any], key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The mappings of a list, each with its path."""
    items = parent.get(key)
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield (key, index), item


def _under(path: Path, problems: Iterator[Problem]) -> Iterator[Problem]:
    for inner, message in problems:
        yield (*path, *inner), message
