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
from trainyard_operator.informer import Informer
from trainyard_operator.leader import Leader
from trainyard_operator.progress import Progress, RefusedError, Server
from trainyard_operator.reconcile import JOBS, Reconciler
from trainyard_operator.render import INDEX_LABEL, Settings


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


@pytest.mark.usefixtures("cluster")
def test_the_operator_may_not_read_secrets() -> None:
    roles = rendered().stdout
    secrets = [line for line in roles.splitlines() if "secrets" in line and "verbs" in line]
    assert secrets
    assert not any(verb in line for line in secrets for verb in ("get", "list", "watch", "*"))


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
        return {"items": [], "metadata": {"resourceVersion": "1"}, "status": {}}

    def get(self, path: str) -> dict[str, Any] | None:
        self.note("get", path)
        return {"spec": {"holderIdentity": "", "renewTime": ""}, "metadata": {}}

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
    with contextlib.suppress(RefusedError):
        Server(api, None, None, threading.Event())._pod_of("Bearer x", "10.0.0.1")  # type: ignore[arg-type]
    settings = Settings("trainer", "https://operator", "CA", b"secret", gang=gang)
    spec = {"model": {"source": "org/m"}, "data": {"train": {"source": "org/d"}}, "storage": {"uri": "s3://r"}}
    spec["workers"] = {"count": 2}  # with a Service
    found = manifest(**spec, ttlSecondsAfterFinished=0)
    found["metadata"] = {"name": "job", "namespace": "team", "uid": "1", "generation": 1}
    pods, jobs = Informer(api, "", print, lambda _: "1"), Informer(api, "", print)  # type: ignore[arg-type]
    jobs.objects["team/job"] = found
    reconciler = Reconciler(api, settings, jobs, pods, Informer(api, "", print), Progress(print))  # type: ignore[arg-type]
    reconciler.reconcile("team/job")
    pod = {
        "metadata": {"name": "job-0", "namespace": "team", "uid": "2", "labels": {INDEX_LABEL: "0"}},
        "spec": {"containers": [{}]},
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
