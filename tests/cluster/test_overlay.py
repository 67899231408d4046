"""The operator's merge of an overlay against the API server's own, on what the operator makes."""

import json
from typing import Any

import pytest

from tests.bed.kubectl import kubectl
from tests.unit.jobs import OWNER, SETTINGS, job
from trainyard_operator.overlay import MERGE_KEYS, overlaid
from trainyard_operator.render import pod

SIDE = {"name": "side", "image": "side:1"}
VOLUMES = [{"name": "disk", "emptyDir": {}}, {"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}]
MOUNTS = [
    {"name": "disk", "mountPath": "/a"},
    {"name": "disk", "mountPath": "/b"},
    {"name": "tmp", "mountPath": "/c"},
    {"name": "disk", "mountPath": "/tmp"},
]
TOLERATIONS = [
    {"key": "gpu", "operator": "Exists", "effect": effect} for effect in ("NoSchedule", "NoExecute", "PreferNoSchedule")
]


def trainer(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


OVERLAYS: dict[str, dict[str, Any]] = {
    "mounts": {"spec": {"volumes": VOLUMES, **trainer(volumeMounts=MOUNTS)["spec"]}},
    "tolerations": {"spec": {"tolerations": TOLERATIONS}},
    "ports": trainer(ports=[{"containerPort": 9090, "name": "metrics"}, {"containerPort": 9091}]),
    "variables": trainer(env=[{"name": "OMP_NUM_THREADS", "value": "2"}, {"name": "MINE", "value": "x"}]),
    "sources of variables": trainer(envFrom=[{"configMapRef": {"name": "mine"}}]),
    "pull secrets": {"spec": {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}},
    "host aliases": {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}, {"ip": "10.0.0.2", "hostnames": ["b"]}]}},
    "spread": {"spec": {"topologySpreadConstraints": [
        {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2},
        {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
    ]}},
    "sidecars": {"spec": {"containers": [SIDE], "initContainers": [{**SIDE, "name": "first"}, {**SIDE, "name": "second"}]}},
    "affinity": {"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}}}}},
    "security": trainer(securityContext={"capabilities": {"add": ["IPC_LOCK"]}, "runAsUser": 2000}),
    "gates": {"spec": {"schedulingGates": [{"name": "example.com/wait"}]}},
    "claims": {"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "one"}]}},
    "nulls": {"spec": {"securityContext": {"fsGroup": None}, "topologySpreadConstraints": None}},
}  # fmt: skip


def template() -> dict[str, Any]:
    """The template of a pod as the operator makes it, without an overlay."""
    made = pod(job(workers={"count": 2, "resources": {"cpu": "4"}}), OWNER, SETTINGS, 1)
    meta = {name: made["metadata"][name] for name in ("labels", "annotations")}
    spec: dict[str, Any] = json.loads(json.dumps(made["spec"]))
    spec["hostAliases"] = [{"ip": "10.0.0.1", "hostnames": ["before"]}]
    spec["imagePullSecrets"] = [{"name": "a"}]
    return {"metadata": meta, "spec": spec}


def kept(namespace: str, made: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of a template, with its defaults."""
    document = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "expected", "namespace": namespace},
        "template": made,
    }
    answer = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(document))
    found: dict[str, Any] = json.loads(answer)["template"]
    return found


def in_order(value: Any, field: str = "") -> Any:
    """A template whose lists that merge by a key are in the order of that key: their order means nothing."""
    if isinstance(value, dict):
        return {key: in_order(child, key) for key, child in value.items()}
    if isinstance(value, list):
        items = [in_order(item) for item in value]
        keys = MERGE_KEYS.get(field, ())
        return sorted(items, key=lambda item: [str(item.get(key)) for key in keys]) if keys else items
    return value


@pytest.mark.parametrize("overlay", OVERLAYS.values(), ids=OVERLAYS.keys())
def test_overlay_merges_as_the_api_server_does(namespace: str, overlay: dict[str, Any]) -> None:
    base = template()
    document = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "pod", "namespace": namespace},
        "template": base,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(document))
    patch = json.dumps({"template": overlay})
    options = ("--type=strategic", "--dry-run=server", "--namespace", namespace, "-o", "json")
    patched = json.loads(kubectl("patch", "podtemplate", "pod", *options, f"--patch={patch}"))["template"]
    assert in_order(kept(namespace, overlaid(base, overlay))) == in_order(patched)
    missing = set(MERGE_KEYS) - {"volumeDevices"} - _fields(list(OVERLAYS.values()))
    assert not missing, "each list that merges by a key is tried"


def _fields(value: Any) -> set[str]:
    """The names of all fields in overlays."""
    if isinstance(value, dict):
        return set(value).union(*(_fields(child) for child in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_fields(child) for child in value))
    return set()


@pytest.mark.parametrize(
    "field",
    [
        {"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]},
        {"topologySpreadConstraints": [
            {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
            {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 3},
        ]},
    ],
    ids=["ports of two protocols", "spread of two kinds"],
)  # fmt: skip
def test_lists_of_two_keys_merge_as_an_apply_does(namespace: str, field: dict[str, Any]) -> None:
    """A strategic patch knows one key of a list, and loses an entry; server-side apply knows both."""
    base = template()
    overlay = trainer(**field) if "ports" in field else {"spec": field}
    meta = {"name": "pod", "namespace": namespace}
    for manager, part in (("operator", base), ("user", overlay)):
        document = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": meta, "template": part}
        options = ("--server-side", "--force-conflicts", f"--field-manager={manager}", "-o", "json", "-f", "-")
        answer = kubectl("apply", *options, stdin=json.dumps(document))
    applied = json.loads(answer)["template"]
    assert in_order(kept(namespace, overlaid(base, overlay))) == in_order(applied)
