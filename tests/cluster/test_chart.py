"""The chart: it lints, refuses typos, and what it renders is taken by a real API server."""

import contextlib
import itertools
import subprocess
import threading
from typing import Any

import pytest
import yaml

from tests.bed import programs
from tests.bed.chart import CHART
from tests.bed.kubectl import kubectl
from tests.conftest import manifest
from trainyard_operator.api import ApiError
from trainyard_operator.identity import INDEX_LABEL, JOB_LABEL, group_of
from trainyard_operator.informer import Informer
from trainyard_operator.leader import Leader
from trainyard_operator.progress import Progress, RefusedError, Server
from trainyard_operator.reconcile import JOBS, Reconciler
from trainyard_operator.render import Settings
from trainyard_operator.tls import OwnSecret


def rendered(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(programs.build() / "helm"), "template", "trainyard", str(CHART), "--kube-version=1.31", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("cluster")
def test_it_lints() -> None:
    done = subprocess.run(
        [str(programs.build() / "helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("value", ["operator.replica=2", "operator.replicas=many", "trainer.img=x"])
def test_a_typo_in_a_value_is_refused(value: str) -> None:
    assert rendered().returncode == 0
    assert rendered("--set", value).returncode != 0


@pytest.mark.parametrize("wide", ["true", "false"], ids=["cluster", "namespace"])
def test_an_api_server_takes_what_it_renders(namespace: str, wide: str) -> None:
    text = rendered("--namespace", namespace, "--set", f"rbac.clusterWide={wide}").stdout
    assert "kind: Deployment" in text
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--namespace", namespace)
    told = kubectl("apply", *options, "-f", "-", stdin=text)
    assert "deployment.apps/trainyard-operator" in told


@pytest.mark.usefixtures("cluster")
def test_the_operator_runs_where_its_values_say() -> None:
    values = {
        "imagePullSecrets": '[{"name":"registry"}]',
        "nodeSelector": '{"pool":"system"}',
        "tolerations": '[{"key":"system","operator":"Exists"}]',
    }
    text = rendered(*[f"--set-json=operator.{name}={value}" for name, value in values.items()]).stdout
    spec = next(found for found in yaml.safe_load_all(text) if found and found["kind"] == "Deployment")["spec"][
        "template"
    ]["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"pool": "system"}
    assert spec["tolerations"][-1] == {"key": "system", "operator": "Exists"}


def objects(*arguments: str) -> list[dict[str, Any]]:
    """What the chart renders with these arguments."""
    return [found for found in yaml.safe_load_all(rendered(*arguments).stdout) if found]


def secret_rules(*arguments: str) -> list[dict[str, Any]]:
    """The rules that let the operator look at Secrets."""
    roles = [found for found in objects(*arguments) if found["kind"] in ("Role", "ClusterRole")]
    granted = itertools.chain.from_iterable(role["rules"] for role in roles)
    of_secrets = [rule for rule in granted if "secrets" in rule["resources"]]
    return [rule for rule in of_secrets if {"get", "list", "watch", "update", "*"} & set(rule["verbs"])]


@pytest.mark.usefixtures("cluster")
def test_operator_reads_no_secret_but_its_own() -> None:
    (rule,) = secret_rules()
    assert rule["resourceNames"] == ["trainyard-operator-ca"]
    assert rule["verbs"] == ["get", "update"]
    assert secret_rules("--set", "tls.existingSecret=mine") == []


@pytest.mark.usefixtures("cluster")
def test_chart_renders_the_same_each_time() -> None:
    assert rendered().stdout == rendered().stdout
    assert [found for found in objects() if found["kind"] == "Secret"] == []


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("tls.existingSecret=mine", "mine"),
        ("tls.certManager.issuerRef.name=internal", "trainyard-operator-cert-manager"),
    ],
    ids=["existing", "cert-manager"],
)
def test_certificates_of_others_are_mounted(value: str, secret: str) -> None:
    found = objects("--set", value, "--namespace", "system")
    pod = next(each for each in found if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert {"name": "tls", "secret": {"secretName": secret}} in pod["volumes"]
    (container,) = pod["containers"]
    assert {"name": "TRAINYARD_TLS", "value": "/etc/trainyard-tls"} in container["env"]
    certificates = [each["spec"] for each in found if each["kind"] == "Certificate"]
    if "certManager" in value:
        assert certificates[0]["secretName"] == secret
        assert certificates[0]["dnsNames"] == ["trainyard-operator.system.svc"]
        assert certificates[0]["issuerRef"] == {"name": "internal"}
    else:
        assert certificates == []


@pytest.mark.usefixtures("cluster")
def test_two_sources_of_certificates_are_refused() -> None:
    done = rendered("--set", "tls.existingSecret=mine", "--set", "tls.certManager.issuerRef.name=internal")
    assert "tls.existingSecret or tls.certManager.issuerRef, not both" in done.stderr


@pytest.mark.usefixtures("cluster")
def test_busy_node_does_not_restart_the_operator() -> None:
    deployment = next(found for found in objects() if found["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 120
    assert min(container[f"{name}Probe"]["timeoutSeconds"] for name in ("startup", "readiness", "liveness")) >= 5


def rules(text: str) -> set[tuple[str, str, str]]:
    """What the operator may do, by what the chart renders: (group, resource, verb)."""
    found = set()
    for document in yaml.safe_load_all(text):
        if (
            document
            and document["kind"] in ("Role", "ClusterRole")
            and document["metadata"]["name"].startswith("trainyard-operator")
        ):
            for rule in document["rules"]:
                found |= set(itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"]))
    return found


class Recorder:
    """An API that answers everything, and keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: set[tuple[str, str, str]] = set()

    def note(self, verb: str, path: str) -> None:
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        rest = rest[2:] if rest[0] == "namespaces" and len(rest) > 2 else rest
        self.asked.add((group, "/".join([rest[0], *rest[2:]]), verb))

    def request(self, method: str, path: str, *_: Any, **__: Any) -> dict[str, Any]:
        self.note({"POST": "create", "PUT": "update", "GET": "list"}[method], path)
        if method == "PUT" and "/secrets/" in path:
            raise ApiError(409, "changed", "Conflict")
        return {"items": [], "metadata": {"resourceVersion": "1"}, "status": {}}

    def get(self, path: str) -> dict[str, Any] | None:
        self.note("get", path)
        return {"spec": {"holderIdentity": "", "renewTime": ""}, "metadata": {"resourceVersion": "1"}}

    def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.note("patch", path)
        if not path.endswith("/status"):
            self.note("create", path)  # server-side apply of what is not there yet
        return body

    def create(self, path: str, body: dict[str, Any]) -> bool:
        self.note("create", path)
        return False  # there is one: it is applied

    def delete(self, path: str, *_: Any, **__: Any) -> None:
        self.note("delete", path)

    def watch(self, path: str, *_: Any, **__: Any) -> Any:
        self.note("watch", path)
        raise _EnoughError

    def list(self, path: str) -> None:
        with contextlib.suppress(_EnoughError):
            Informer(self, path, lambda _: None).run()  # type: ignore[arg-type]


class _EnoughError(BaseException):
    pass


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("gang", ["None", "Volcano", "KAI", "Coscheduling"])
def test_the_operator_may_do_what_it_does_and_nothing_more(gang: Any) -> None:
    api = Recorder()
    for path in (JOBS, "/api/v1/pods", "/api/v1/nodes"):
        api.list(path)
    Leader(api, "system").acquire()  # type: ignore[arg-type]
    with contextlib.suppress(ApiError):  # it is changed under its hands, each time
        OwnSecret(api, "system", "own", "host").current()  # type: ignore[arg-type]
    with contextlib.suppress(RefusedError):
        Server(api, None, None, None, threading.Event())._pod_of("Bearer x", "10.0.0.1")  # type: ignore[arg-type]
    settings = Settings(image="trainer", progress_url="https://operator", ca="CA", gang=gang)
    spec = {"model": {"source": "org/m"}, "data": {"train": {"source": "org/d"}}, "storage": {"uri": "s3://r"}}
    spec["workers"] = {"count": 2}  # with a Service
    found = manifest(**spec, ttlSecondsAfterFinished=0)
    found["metadata"] = {"name": "job", "namespace": "team", "uid": "1", "generation": 1}
    pods, jobs = Informer(api, "", print, group_of), Informer(api, "", print)  # type: ignore[arg-type]
    jobs.objects["team/job"] = found
    reconciler = Reconciler(api, settings, jobs, pods, Informer(api, "", print), Progress(print))  # type: ignore[arg-type]
    reconciler.reconcile("team/job")
    labels = {JOB_LABEL: "job", INDEX_LABEL: "0"}
    owners = [{"uid": "1", "controller": True}]
    pod = {
        "metadata": {"name": "job-0", "namespace": "team", "uid": "2", "labels": labels, "ownerReferences": owners},
        "spec": {"containers": [{"name": "trainer"}]},
    }
    for status in ({"phase": "Failed"}, {"phase": "Succeeded"}):
        pods._take({**pod, "status": status}, gone=False)
        reconciler.reconcile("team/job")
    reconciler.reconcile("team/job")
    # Asked for by the API server itself, of whoever sets an ownerReference that blocks deletion.
    implied = {("trainyard.dev", "trainerjobs/finalizers", "update")}
    # Taking a Lease that another holds, and making the first one, are the same path with other answers.
    implied |= {("coordination.k8s.io", "leases", verb) for verb in ("create", "update")}
    granted = rules(rendered("--set", f"scheduling.gang={gang}").stdout)
    assert granted == api.asked | implied
