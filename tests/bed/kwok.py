"""Fake nodes and pods, for scale and for GPUs that are not there: KWOK plays their kubelets.

https://kwok.sigs.k8s.io
"""

from tests.bed import daemons, programs
from tests.bed.home import HOST, STATE, BedError
from tests.bed.kubectl import apply, get
from tests.bed.pki import Authority

_ANNOTATION = "kwok.x-k8s.io/node"
_PORT = 10247


def add_node(name: str, gpus: int = 0, cpu: str = "64", memory: str = "512Gi", pods: int = 1000) -> None:
    """Add a fake node; pods reach it only with a toleration of its taint, and run in name only.

    Raises BedError when there is no cluster, or a real node of that name.
    """
    if not STATE.exists():
        raise BedError("the cluster is down; to raise it: make cluster")
    for there in get("nodes")["items"]:
        if there["metadata"]["name"] == name and _ANNOTATION not in there["metadata"].get("annotations", {}):
            raise BedError(f"{name} is a real node; choose another name")
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


def up() -> None:
    """Start KWOK again where it was started before and has ended: fake nodes live by it."""
    if "kwok" in daemons.names():
        _start()


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
