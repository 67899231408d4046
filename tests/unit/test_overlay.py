"""The strategic overlay: by which key each list of a pod merges. tests/cluster asks an API server for the same."""

from typing import Any

import pytest

from trainyard_operator.overlay import overlaid

MOUNT = {"name": "tmp", "mountPath": "/tmp"}
OURS = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}


@pytest.mark.parametrize(
    ("field", "base", "over", "merged"),
    [
        ("volumeMounts", [MOUNT], [{"name": "tmp", "mountPath": "/a"}, {"name": "tmp", "mountPath": "/b"}],
         [MOUNT, {"name": "tmp", "mountPath": "/a"}, {"name": "tmp", "mountPath": "/b"}]),
        ("volumeMounts", [MOUNT], [{"name": "disk", "mountPath": "/tmp"}], [{"name": "disk", "mountPath": "/tmp"}]),
        ("tolerations", [], [{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoSchedule"}],
         [{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoSchedule"}]),
        ("tolerations", [{"key": "a"}], [{"key": "b"}], [{"key": "b"}]),
        ("ports", [{"containerPort": 53, "protocol": "UDP"}], [{"containerPort": 53}],
         [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]),
        ("ports", [{"containerPort": 53}], [{"containerPort": 53, "protocol": "TCP", "name": "dns"}],
         [{"containerPort": 53, "protocol": "TCP", "name": "dns"}]),
        ("env", [{"name": "A", "value": "1"}], [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
         [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]),
        ("env", [{"name": "A", "value": "1"}], [{"name": "A", "valueFrom": {"fieldRef": {}}}],
         [{"name": "A", "valueFrom": {"fieldRef": {}}}]),
        ("volumes", [{"name": "shm", "emptyDir": {"medium": "Memory"}}], [{"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}],
         [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]),
        ("volumes", [{"name": "tmp", "emptyDir": {}}], [{"name": "tmp", "hostPath": {"path": "/scratch"}}],
         [{"name": "tmp", "hostPath": {"path": "/scratch"}}]),
        ("imagePullSecrets", [{"name": "a"}], [{"name": "b"}], [{"name": "a"}, {"name": "b"}]),
        ("hostAliases", [{"ip": "10.0.0.1", "hostnames": ["a"]}], [{"ip": "10.0.0.1", "hostnames": ["b"]}],
         [{"ip": "10.0.0.1", "hostnames": ["b"]}]),
        ("topologySpreadConstraints", [OURS], [{**OURS, "maxSkew": 2}], [{**OURS, "maxSkew": 2}]),
        ("topologySpreadConstraints", [OURS], [{**OURS, "whenUnsatisfiable": "DoNotSchedule"}],
         [OURS, {**OURS, "whenUnsatisfiable": "DoNotSchedule"}]),
        ("containers", [{"name": "trainer", "image": "a"}], [{"name": "trainer", "tty": True}, {"name": "side"}],
         [{"name": "trainer", "image": "a", "tty": True}, {"name": "side"}]),
        ("env", [{"name": "A"}], [{"name": {"a": "b"}}], [{"name": {"a": "b"}}]),
        ("args", ["a", "b"], ["c"], ["c"]),
        ("envFrom", [{"secretRef": {"name": "a"}}], [{"secretRef": {"name": "b"}}], [{"secretRef": {"name": "b"}}]),
        ("volumeDevices", [{"name": "a", "devicePath": "/dev/a"}], [{"name": "a", "devicePath": "/dev/b"}],
         [{"name": "a", "devicePath": "/dev/a"}, {"name": "a", "devicePath": "/dev/b"}]),
    ],
    ids=[
        "two mounts of one volume", "a mount in place of another", "two tolerations of one key", "tolerations are replaced",
        "ports of two protocols", "the default protocol", "variables", "a variable from elsewhere", "volumes",
        "another kind of volume", "pull secrets", "host aliases", "spread of one key", "spread of two kinds", "containers",
        "a name of the wrong kind", "arguments", "sources of variables", "devices",
    ],
)  # fmt: skip
def test_lists_merge_by_the_keys_of_kubernetes(field: str, base: list[Any], over: list[Any], merged: list[Any]) -> None:
    assert overlaid({field: base}, {field: over}) == {field: merged}


def test_null_takes_a_field_away() -> None:
    assert overlaid({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}}) == {"b": {"c": 2, "d": 3}}


def test_neither_side_is_changed() -> None:
    base, over = {"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}
    overlaid(base, over)
    assert base == {"env": [{"name": "A", "value": "1"}]}
    assert over == {"env": [{"name": "A", "value": "2"}]}
