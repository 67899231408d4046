"""Fixtures for tests on a real cluster: the bed's own, or the one that KUBECONFIG names."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import chart, images
from tests.bed import cluster as bed
from tests.bed import s3 as bed_s3
from tests.bed.home import HOST, ROOT
from tests.bed.kubectl import apply, kubectl
from tests.bed.node import Node
from tests.bed.pki import FOLDER
from tests.bed.proxy import FaultyProxy
from tests.bed.s3 import S3Server
from tests.cluster.jobs import ARGUMENTS, Job, upload
from tests.conftest import Tiny

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
builds: list[subprocess.Popen[bytes]] = []


def foreign() -> bool:
    """Whether the tests run on a cluster that is not the bed's."""
    named = os.environ.get("KUBECONFIG")
    return bool(named) and Path(named) != FOLDER / "admin.kubeconfig"


def ours(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those of the tests that are of this folder."""
    return [item for item in items if item.path.is_relative_to(Path(__file__).parent)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first one waits for what is built: ten minutes, where nothing has been built before."""
    for item in ours(items)[:1]:
        item.add_marker(pytest.mark.timeout(1800))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what these tests need while others, which come first, wait for their processes."""
    if ours(session.items) and not foreign() and bed.why_not() is None and not session.config.option.collectonly:
        command = ["nice", "-n", "10", sys.executable, "-m", "tests.bed", "build"]
        builds.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, process_group=0))


def pytest_sessionfinish() -> None:
    """A build that nobody waits for any more ends."""
    for build in builds:
        if build.poll() is None:
            os.killpg(build.pid, signal.SIGKILL)
        build.wait()


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """A cluster that is up. The bed's own goes down again at the end, unless it was up before."""
    if foreign():
        yield
        return
    if reason := bed.why_not():
        pytest.skip(reason)
    before = bed.is_up()
    bed.up()
    try:
        yield
    finally:
        if not before:
            bed.down()


@pytest.fixture(scope="package")
def environment(cluster: None) -> Path:
    """The environment of training pods on this machine, with their image on both nodes."""
    if foreign():
        pytest.skip("its pods mount this machine's folders, and KUBECONFIG names another cluster")
    bed.build()
    chart.load(images.TRAINER)
    return images.environment()


@pytest.fixture(scope="package")
def operator(cluster: None, environment: Path) -> Iterator[None]:
    """The operator, installed by its chart from its real image, for the tests of this folder."""
    chart.load(images.OPERATOR)
    chart.install(images.TRAINER)
    yield
    chart.uninstall()


@pytest.fixture
def namespace(cluster: None) -> Iterator[str]:
    """A namespace of the test's own, which enforces restricted Pod Security; deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    try:
        yield name
    finally:
        kubectl("delete", "pods", "--all", "--namespace", name, "--grace-period=1", "--wait=false")
        kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def mounted(environment: Path, namespace: str) -> Iterator[dict[str, Any]]:
    """A volume with the environment, for pods of the namespace."""
    with claimed(environment, namespace) as volume:
        yield volume


@contextlib.contextmanager
def claimed(folder: Path, namespace: str, name: str = "environment") -> Iterator[dict[str, Any]]:
    """A volume with a folder of this machine: restricted Pod Security forbids hostPath, not claims."""
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {**common, "capacity": {"storage": "10Gi"}, "hostPath": {"path": str(folder)}},
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**common, "volumeName": f"{namespace}-{name}", "resources": {"requests": {"storage": "10Gi"}}},
    }
    apply(volume, claim)
    bound = "--for=jsonpath={.status.phase}=Bound"
    kubectl("wait", f"persistentvolumeclaim/{name}", bound, "--namespace", namespace)
    try:
        yield {"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
    finally:
        kubectl("delete", "persistentvolume", f"{namespace}-{name}", "--wait=false")


@pytest.fixture(scope="package")
def s3(cluster: None) -> S3Server:
    """An S3 server that pods and this machine reach at the same address."""
    if foreign():
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if lacking := [name for name in names if not os.environ.get(name)]:
            pytest.skip(
                f"on the cluster of KUBECONFIG this needs an S3 server that its pods reach: set {', '.join(lacking)}"
            )
        return S3Server(*(os.environ[name] for name in names))
    return bed_s3.up()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    """A proxy in front of the S3 server that can be told to fail."""
    if foreign():
        pytest.skip("the proxy runs on this machine, and KUBECONFIG names another cluster")
    faulty = FaultyProxy(s3.endpoint, HOST)
    yield faulty
    faulty.close()


@pytest.fixture
def node2(cluster: None) -> Iterator[Node]:
    """The second node, to be stopped and started; started again afterwards."""
    if foreign():
        pytest.skip("it stops a node, and KUBECONFIG names a cluster whose nodes are not ours")
    yield bed.NODES[1]
    bed.start_node(bed.NODES[1])


@pytest.fixture(scope="package")
def inputs(s3: S3Server, tiny: Tiny) -> str:
    """URI of the tiny model and its data."""
    upload(s3, Path(tiny.model("bert")), "s3://inputs/bert")
    upload(s3, Path(tiny.rows("classes")), "s3://inputs/classes.jsonl")
    return "s3://inputs"


@pytest.fixture
def job(namespace: str, mounted: dict[str, Any], s3: S3Server, inputs: str) -> Job:
    """A manifest for the namespace, with parts of its spec replaced."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3", "namespace": namespace},
        "stringData": s3.environment,
    }
    apply(secret)
    mount = {"name": "environment", "mountPath": "/opt/trainyard", "readOnly": True}
    template = {"spec": {"containers": [{"name": "trainer", "volumeMounts": [mount]}], "volumes": [mounted]}}

    def make(name: str = "job", **changes: Any) -> dict[str, Any]:
        spec = {
            "task": "text-classification",
            "model": {"source": f"{inputs}/bert"},
            "data": {"train": {"source": f"{inputs}/classes.jsonl"}},
            "trainingArguments": dict(ARGUMENTS),
            "workers": {"count": 2, "template": template, "resources": {"cpu": "500m"}},
            "storage": {"uri": "s3://runs", "endpoint": s3.endpoint, "secret": "s3"},
            **changes,
        }
        meta = {"name": name, "namespace": namespace}
        return {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "metadata": meta, "spec": spec}

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test tells what its namespace looks like."""
    report = yield
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.failed and namespace:
        operator = ["--namespace", chart.NAMESPACE, "logs", "deployment/trainyard-operator", "--tail=80"]
        for title, arguments in {
            "jobs": ["get", "trainerjobs", "-o", "yaml"],
            "pods": ["get", "pods", "-o", "wide"],
            "events": ["get", "events", "--sort-by=.lastTimestamp"],
            "logs": [
                "logs",
                "--selector=app.kubernetes.io/name=trainyard",
                "--all-containers",
                "--prefix",
                "--tail=60",
            ],
            "other logs": ["logs", "--selector=app", "--all-containers", "--prefix", "--tail=60"],
            **({"operator's log": operator} if "operator" in getattr(item, "fixturenames", ()) else {}),
        }.items():
            try:
                text = kubectl(*(["--namespace", namespace] if arguments is not operator else []), *arguments)
            except subprocess.SubprocessError as error:
                text = str(error)
            report.sections.append((f"{title} of {namespace}", text))
    return report
