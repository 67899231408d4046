"""Jobs whose agent is a shell script: real pods on real kubelets that end as a test wants, without any training."""

from typing import Any

from tests.bed.kubectl import apply

SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
BIN = "/opt/trainyard/bin"
"""Where the operator's command finds Python in the trainer's image."""
WAITS = "trap 'exit 143' TERM; sleep 1000 & wait"
"""An agent that goes when it is asked to."""


def ends(exit_code: int, outcome: str, message: str) -> str:
    """An agent that ends after a second, with its word."""
    word = f'{{"outcome": "{outcome}", "message": "{message}"}}'
    return f"sleep 1; echo '{word}' > /dev/termination-log; exit {exit_code}"


def scripted(namespace: str, name: str, script: str, count: int = 1, **spec: Any) -> dict[str, Any]:
    """A manifest of a job whose agent is a script; the script lies in the namespace already."""
    data = {"python": f"#!/bin/sh\n{script}\n"}
    meta = {"name": name, "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    template = {
        "spec": {
            "volumes": [{"name": "script", "configMap": {"name": name, "defaultMode": 0o755}}],
            "containers": [{"name": "trainer", "volumeMounts": [{"name": "script", "mountPath": BIN}]}],
        }
    }
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainerJob",
        "metadata": meta,
        "spec": {
            "task": "text-classification",
            "model": {"source": "s3://none/model"},
            "data": {"train": {"source": "s3://none/data.jsonl"}},
            "storage": {"uri": "s3://none"},
            "workers": {"count": count, "template": template},
            **spec,
        },
    }


def beside(made: dict[str, Any], image: str, native: bool = False) -> dict[str, Any]:
    """The job with a sidecar that never ends by itself; a native one is an init container that runs on."""
    command = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
    sidecar = {"name": "proxy", "image": image, "command": command, "securityContext": SECURITY}
    spec = made["spec"]["workers"]["template"]["spec"]
    if native:
        spec["initContainers"] = [{**sidecar, "restartPolicy": "Always"}]
    else:
        spec["containers"] = [*spec["containers"], sidecar]
    return made
