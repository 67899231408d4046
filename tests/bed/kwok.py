"""Fake nodes and pods, for scale and for GPUs that are not there: KWOK plays their kubelets.

https://kwok.sigs.k8s.io
"""

from tests.bed import daemons, programs
from tests.bed.home import HOST
from tests.bed.kubectl import apply
from tests.bed.pki import Authority

_ANNOTATION = "kwok.x-k8s.io/node"
_PORT = 10247


def add_node(name: str, gpus: int = 0, cpu: str = "64", memory: str = "512Gi", pods: int = 1000) -> None:
    """Add a fake node; pods reach it only with a toleration of its taint, and run in name only."""
    _start()
    resources = {"cpu": cpu, "memory": memory, "pods": str(pods), **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_ANNOTATION: "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
        },
        "spec": {"taints": [{"key": _ANNOTATION, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": resources, "allocatable": resources},
    }
    apply(node)


def _start() -> None:
    kubeconfig = Authority().kubeconfig("kwok", "system:masters")
    program, stages = programs.build_kwok()
    command = [
        program, f"--kubeconfig={kubeconfig}", "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake", f"--server-address={HOST}:{_PORT}",
        "--node-lease-duration-seconds=40",
        *(f"--config={stage}" for stage in stages),
    ]  # fmt: skip
    daemons.start("kwok", command)
