"""What a Kubernetes must do, on the cluster that the other tests rely on."""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.bed import cluster as bed
from tests.bed import kwok, programs
from tests.bed.kubectl import KUBECTL, apply, get, kubeconfig, kubectl
from tests.bed.node import Node
from tests.bed.pki import FOLDER
from tests.cluster.pods import pod, service

SERVE = ["python3", "-m", "http.server", "8000", "--directory", "/etc"]
SLEEP = ["sleep", "3600"]
FLEE = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    for what in ("unreachable", "not-ready")
]
# A connection that was begun before kube-proxy knew the service is never answered: a new one is tried.
FETCH = """
import sys, time, urllib.request
until = time.monotonic() + 30
while True:
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=2).status)
        break
    except OSError:
        if time.monotonic() > until:
            raise
        time.sleep(0.2)
"""


def ready(namespace: str, *pods: str) -> None:
    kubectl(
        "wait", "--for=condition=Ready", "--namespace", namespace, "--timeout=60s", *[f"pod/{name}" for name in pods]
    )


def test_pods_of_two_nodes_talk_and_a_lost_node_is_seen_and_comes_back(namespace: str, node2: Node) -> None:
    apply(
        pod(namespace, "server", SERVE, nodeName="node-1"),
        pod(namespace, "client", SLEEP, nodeName="node-2", tolerations=FLEE),
        service(namespace, "server", 8000),
    )
    ready(namespace, "server", "client")
    address = f"http://server.{namespace}.svc.cluster.local:8000/hostname"
    assert kubectl("--namespace", namespace, "exec", "client", "--", "python3", "-c", FETCH, address).strip() == "200"

    node2.stop()
    kubectl("wait", "node/node-2", "--for=condition=Ready=Unknown", "--timeout=90s", timeout=95)
    evicted = "--for=jsonpath={.metadata.deletionTimestamp}"
    kubectl("wait", "pod/client", "--namespace", namespace, evicted, "--timeout=60s", timeout=65)
    bed.start_node(node2)
    kubectl("wait", "pod/client", "--namespace", namespace, "--for=delete", "--timeout=60s", timeout=65)


def test_exec_logs_and_port_forward(namespace: str) -> None:
    apply(pod(namespace, "server", ["sh", "-c", f"echo hello; {' '.join(SERVE)}"]))
    ready(namespace, "server")
    assert "hello" in kubectl("--namespace", namespace, "logs", "server")
    assert kubectl("--namespace", namespace, "exec", "server", "--", "id", "-u").strip() == "1000"
    command = [
        str(KUBECTL),
        f"--kubeconfig={kubeconfig()}",
        "--namespace",
        namespace,
        "port-forward",
        "server",
        ":8000",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout
            port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert port
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=10) as answer:
                assert answer.status == 200
        finally:
            forward.terminate()


def test_restricted_pod_security_is_enforced(namespace: str) -> None:
    plain = pod(namespace, "root", SLEEP, securityContext={})
    with pytest.raises(subprocess.CalledProcessError, match="kubectl") as refused:
        apply(plain)
    assert "violates PodSecurity" in refused.value.stderr


def test_helm_installs_a_chart(namespace: str, tmp_path: Path) -> None:
    helm = [str(programs.build() / "helm"), "--kubeconfig", str(kubeconfig()), "--namespace", namespace]
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: probe\nversion: 0.1.0\n")
    template = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "probe"},
        "data": {"answer": "{{ .Values.answer }}"},
    }
    (chart / "templates" / "map.yaml").write_text(json.dumps(template))
    subprocess.run([*helm, "install", "probe", str(chart), "--set", "answer=yes"], check=True, capture_output=True)
    assert get("configmap", "probe", "--namespace", namespace)["data"] == {"answer": "yes"}
    subprocess.run([*helm, "uninstall", "probe"], check=True, capture_output=True)


@pytest.mark.skipif(
    "KUBECONFIG" in os.environ and Path(os.environ["KUBECONFIG"]) != FOLDER / "admin.kubeconfig",
    reason="KUBECONFIG names a cluster whose nodes are not ours",
)
def test_a_pod_that_wants_gpus_runs_on_a_fake_node(namespace: str) -> None:
    kwok.add_node("gpu-1", gpus=4)
    try:
        limits = {"limits": {"nvidia.com/gpu": "4"}}
        tolerations = [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]
        for name in ("first", "second"):
            apply(pod(namespace, name, SLEEP, container={"resources": limits}, tolerations=tolerations))
            if name == "first":
                ready(namespace, name)
        unschedulable = "--for=condition=PodScheduled=False"
        kubectl("wait", "pod/second", "--namespace", namespace, unschedulable, "--timeout=30s")
    finally:
        kubectl("delete", "pods", "--all", "--namespace", namespace, "--force", "--grace-period=0", timeout=90)
        kubectl("delete", "node", "gpu-1")
