"""Pods as restricted Pod Security wants them."""

from typing import Any

from tests.bed.images import TRAINER

BASE = "localhost/base:1"


def pod(namespace: str, name: str, command: list[str], image: str = BASE, **spec: Any) -> dict[str, Any]:
    """A pod of one container; parts of its spec by name, of its container by `container`."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": "Never",
            "containers": [container],
            **spec,
        },
    }


def trainer_pod(
    namespace: str, name: str, command: list[str], environment: dict[str, Any], **spec: Any
) -> dict[str, Any]:
    """A pod with the trainer's image and its environment mounted where the whole image has it."""
    mounts = [
        {"name": "environment", "mountPath": "/opt/trainyard", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
        *spec.pop("mounts", []),
    ]
    volumes = [
        environment,
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        *spec.pop("volumes", []),
    ]
    container = {"volumeMounts": mounts, **spec.pop("container", {})}
    return pod(namespace, name, command, TRAINER, container=container, volumes=volumes, **spec)


def service(namespace: str, name: str, port: int | None = None) -> dict[str, Any]:
    """A Service for the pods labelled with its name: headless without a port."""
    spec: dict[str, Any] = {"selector": {"app": name}}
    spec |= {"ports": [{"port": port}]} if port else {"clusterIP": "None", "publishNotReadyAddresses": True}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
