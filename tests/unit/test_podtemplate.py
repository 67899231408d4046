"""What an overlay may not change of a pod: each refused with its place, the reason and the fix, here and on a cluster."""

from typing import Any

import pytest

from tests.conftest import manifest
from tests.unit.jobs import OWNER, SETTINGS, SPEC, job
from trainyard.spec.manifest import validate
from trainyard.spec.podtemplate import LABELS
from trainyard_operator.reconcile import accepted
from trainyard_operator.render import pod


def trainer(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


def side(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "side", "image": "x:1", **fields}]}}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "restart policy": ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy", "the operator replaces a pod"),
    "no restart policy": ({"spec": {"restartPolicy": None}}, "spec.restartPolicy", "the operator replaces a pod"),
    "host name": ({"spec": {"hostname": "head"}}, "spec.hostname", "find the head"),
    "subdomain": ({"spec": {"subdomain": "mine"}}, "spec.subdomain", "find the head"),
    "host name of a domain": ({"spec": {"setHostnameAsFQDN": True}}, "spec.setHostnameAsFQDN", "64 characters"),
    "network of the host": ({"spec": {"hostNetwork": True}}, "spec.hostNetwork", "each other's ports"),
    "processes of the host": ({"spec": {"hostPID": True}}, "spec.hostPID", "nobody waits for"),
    "processes of one pod": ({"spec": {"shareProcessNamespace": True}}, "spec.shareProcessNamespace", "first process"),
    "labels that are a word": ({"metadata": {"labels": "team"}}, "metadata.labels", "key: value"),
    "a node": ({"spec": {"nodeName": "node-1"}}, "spec.nodeName", "nodeSelector"),
    "deadline of pods": ({"spec": {"activeDeadlineSeconds": 60}}, "spec.activeDeadlineSeconds", "set spec.activeDeadlineSeconds"),
    "no time to save": ({"spec": {"terminationGracePeriodSeconds": 0}}, "spec.terminationGracePeriodSeconds", "time to save"),
    "rights": ({"spec": {"automountServiceAccountToken": True}}, "spec.automountServiceAccountToken", "projected token"),
    "DNS of the node": ({"spec": {"dnsPolicy": "Default"}}, "spec.dnsPolicy", "head's name"),
    "ephemeral containers": ({"spec": {"ephemeralContainers": []}}, "spec.ephemeralContainers", "kubectl debug"),
    "no containers": ({"spec": {"containers": None}}, "spec.containers", "name those to change"),
    "no volumes": ({"spec": {"volumes": None}}, "spec.volumes", "name those to change"),
    "command": (trainer(command=["sh"]), "spec.containers.0.command", "spec.script"),
    "arguments": (trainer(args=["x"]), "spec.containers.0.args", "spec.script.args"),
    "no image": (trainer(image=None), "spec.containers.0.image", "keep the operator's"),
    "no variables": (trainer(env=None), "spec.containers.0.env", "name those to add"),
    "no mounts": (trainer(volumeMounts=None), "spec.containers.0.volumeMounts", "name those to add"),
    "liveness probe": (trainer(livenessProbe={}), "spec.containers.0.livenessProbe", "restart.hangSeconds"),
    "startup probe": (trainer(startupProbe={}), "spec.containers.0.startupProbe", "restart.hangSeconds"),
    "hooks": (trainer(lifecycle={"preStop": {}}), "spec.containers.0.lifecycle", "take its time"),
    "restarts of the container": (trainer(restartPolicy="Always"), "spec.containers.0.restartPolicy", "replaces a pod"),
    "termination message": (trainer(terminationMessagePath="/x"), "spec.containers.0.terminationMessagePath", "why a pod has ended"),
    "termination policy": (trainer(terminationMessagePolicy="File"), "spec.containers.0.terminationMessagePolicy", "last line"),
    "our variable": (trainer(env=[{"name": "A", "value": "1"}, {"name": "TRAINYARD_INDEX", "value": "0"}]),
                     "spec.containers.0.env.1.name", "the operator sets TRAINYARD_INDEX"),
    "mount over ours": (trainer(volumeMounts=[{"name": "x", "mountPath": "/etc/trainyard/"}]), "spec.containers.0.volumeMounts.0.mountPath", "which the agent reads"),
    "mount above ours": (trainer(volumeMounts=[{"name": "x", "mountPath": "/var/run"}]), "spec.containers.0.volumeMounts.0.mountPath", "which the agent reads"),
    "mount of the root": (trainer(volumeMounts=[{"name": "x", "mountPath": "/"}]), "spec.containers.0.volumeMounts.0.mountPath", "which the agent reads"),
    "mount in ours": (trainer(volumeMounts=[{"name": "x", "mountPath": "/var/run/secrets/trainyard/x"}]), "spec.containers.0.volumeMounts.0.mountPath", "which the agent reads"),
    "scratch that cannot be written": (trainer(volumeMounts=[{"name": "x", "mountPath": "/tmp", "readOnly": True}]), "spec.containers.0.volumeMounts.0.readOnly", "training writes"),
    "our volume": ({"spec": {"volumes": [{"name": "token", "emptyDir": {}}]}}, "spec.volumes.0.name", "the operator's own"),
    "port of Ray": (side(ports=[{"containerPort": 6379}]), "spec.containers.0.ports.0.containerPort", "Ray listens at 6379"),
    "port of Ray's workers": ({"spec": {"initContainers": [{"name": "side", "image": "x", "ports": [{"containerPort": 10005}]}]}},
                              "spec.initContainers.0.ports.0.containerPort", "Ray listens at 10005"),
    "trainer as an init container": ({"spec": {"initContainers": [{"name": "trainer", "image": "x"}]}}, "spec.initContainers.0.name", "choose another name"),
    "container of a wrong name": ({"spec": {"containers": [{"name": "trianer", "env": []}]}}, "spec.containers.0", "the one that trains is called trainer"),
    "container without a name": ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers.0", "a mapping with a name"),
    "containers that are no list": ({"spec": {"containers": {"name": "trainer"}}}, "spec.containers", "a list"),
    "a name": ({"metadata": {"name": "x"}}, "metadata.name", "only labels and annotations"),
    "finalizers": ({"metadata": {"finalizers": ["x/y"]}}, "metadata.finalizers", "only labels and annotations"),
    "our label": ({"metadata": {"labels": {"trainyard.dev/job-name": "x"}}}, "metadata.labels.trainyard.dev/job-name", "another name"),
    "our common label": ({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}, "metadata.labels.app.kubernetes.io/name", "another name"),
    "our annotation": ({"metadata": {"annotations": {"trainyard.dev/spec": "x"}}}, "metadata.annotations.trainyard.dev/spec", "another name"),
    "field beside spec": ({"nodeSelector": {}}, "nodeSelector", "move it below spec"),
    "directive of a patch": ({"spec": {"containers": [{"name": "trainer", "$patch": "delete"}]}}, "spec.containers.0.$patch", "write null"),
    "spec that is no mapping": ({"spec": []}, "spec", "a mapping"),
}  # fmt: skip


def problems_of(template: dict[str, Any]) -> list[tuple[str, str]]:
    """The places and messages of what validate() finds wrong with an overlay."""
    _, problems = validate(manifest(**{**SPEC, "workers": {"count": 2, "template": template}}))
    return [(".".join(map(str, problem.path)), problem.message) for problem in problems]


@pytest.mark.parametrize(("template", "field", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_breaks_a_pod_is_refused(template: dict[str, Any], field: str, words: str) -> None:
    found = problems_of(template)
    assert [place for place, _ in found] == [f"spec.workers.template.{field}"]
    assert words in found[0][1]


def test_operator_refuses_what_breaks_a_pod() -> None:
    found = manifest(**{**SPEC, "workers": {"template": {"spec": {"subdomain": "x"}}}})
    found["metadata"] = {"name": "job", "namespace": "team", "uid": "1"}
    made, problems = accepted(found, "None")
    assert made is None
    assert [problem.path for problem in problems] == [("spec", "workers", "template", "spec", "subdomain")]


ALLOWED: dict[str, dict[str, Any]] = {
    "placement": {"spec": {"nodeSelector": {"gpu": "h100"}, "affinity": {}, "tolerations": [{"key": "a"}], "priorityClassName": "x"}},
    "the same policy": {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "hostNetwork": False}},
    "a service account": {"spec": {"serviceAccountName": "trainer"}},
    "time to save": {"spec": {"terminationGracePeriodSeconds": 600}},
    "a sidecar": side(ports=[{"containerPort": 9090}], livenessProbe={}, command=["x"], args=["y"], lifecycle={}),
    "a native sidecar": {"spec": {"initContainers": [{"name": "proxy", "image": "x", "restartPolicy": "Always"}]}},
    "image and variables": trainer(image="mine:1", imagePullPolicy="Never", env=[{"name": "A", "value": "1"}], envFrom=[]),
    "volumes": {"spec": {**trainer(volumeMounts=[{"name": "d", "mountPath": "/data"}, {"name": "c", "mountPath": "/tmp/cache"}])["spec"],
                         "volumes": [{"name": "d", "emptyDir": {}}, {"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}]}},
    "labels": {"metadata": {"labels": {"team": "a"}, "annotations": {"sidecar.istio.io/inject": "true"}}},
    "no labels": {"metadata": {"labels": None}},
    "resources": trainer(resources={"limits": {"nvidia.com/gpu": 1}}, securityContext={"runAsUser": 2000}, readinessProbe={}),
}  # fmt: skip


@pytest.mark.parametrize("template", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_breaks_no_pod_is_allowed(template: dict[str, Any]) -> None:
    assert problems_of(template) == []


def test_labels_of_the_operator_are_all_kept() -> None:
    labels = pod(job(), OWNER, SETTINGS, 0)["metadata"]["labels"]
    ours = [name for name in labels if name.startswith("app.kubernetes.io/")]
    assert sorted(ours) == sorted(LABELS)
