"""How many jobs the operator carries, on the bed's real API server, with pods that only say that they run.

    python -m bench.control_plane [jobs …]

The operator's own process runs on this machine against the API server, by the token of a service account as in a pod.
The jobs' pods are bound to no node; a part of this benchmark says of each that it runs, and at last that it has
succeeded. What that costs, and the API server, is in the times: they share the machine's cores with the operator.

First all jobs are created, then the operator is started: jobs per second, from when it leads until each job has its pod
and every pod runs. With them there, a new job comes every twentieth of a second: seconds from its creation to the first
status that tells of it, as an observer's watch sees both. Then the operator is started again, which makes it look at
every job, and must write nothing. At last all pods succeed: jobs per second until each is Complete.

The peer is no operator at all: as many threads as it has write what it writes of each job up to Running, from objects
that were made before, and look at nothing. That is what this machine's API server takes at most.
"""

import concurrent.futures
import contextlib
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import trustme
import yaml

from bench.cluster import seconds_until
from bench.common import save, spread
from tests.bed import cluster as bed
from tests.bed import daemons
from tests.bed.chart import CHART
from tests.bed.kubectl import apply, kubeconfig, kubectl
from trainyard.spec.model import API_VERSION, KIND
from trainyard_operator import render
from trainyard_operator.api import Api, ApiError
from trainyard_operator.identity import Owner
from trainyard_operator.informer import Informer, key_of
from trainyard_operator.main import WORKERS
from trainyard_operator.observe import observe
from trainyard_operator.reconcile import JOBS, PATHS, accepted
from trainyard_operator.world import World

NAMESPACE = f"bench-control-plane-{os.getpid()}"
"""A new one each time: for a while the API server asks itself, at each request, for a name that was deleted lately."""
_JOBS = JOBS.replace("/trainerjobs", f"/namespaces/{NAMESPACE}/trainerjobs")
_CREATORS = 4
_ONE_BY_ONE, _PAUSE = 200, 0.05
"""Jobs that come when the others are there, and the seconds between two of them."""
_QUIET = 5.0
_ACCOUNT = "operator"
_WATCHED = 'resource="trainerjobs",scope="cluster",subresource="",verb="WATCH"'
_ONE, _BARE = "one", "bare"
_WRITES = ("POST", "PATCH", "DELETE")
"""Requests that change something. PUT is the Lease's alone."""
Object = dict[str, Any]


class Kubelets:
    """Says of every pod of a job that it runs, and when told to, that it has succeeded."""

    def __init__(self, api: Api) -> None:
        self.api, self.ending = api, False
        self.running = set[str]()
        """Names of the pods that the API server says run."""
        self.pool = concurrent.futures.ThreadPoolExecutor(_CREATORS)
        self.pods = Informer(api, f"/api/v1/namespaces/{NAMESPACE}/pods", self._changed)
        self.pods.start()

    def end(self) -> None:
        """Let every pod succeed."""
        self.ending = True
        for pod in list(self.pods.objects.values()):
            self._changed(pod)

    def _changed(self, pod: Object) -> None:
        phase, wanted = pod.get("status", {}).get("phase"), "Succeeded" if self.ending else "Running"
        if phase == "Running":
            self.running.add(pod["metadata"]["name"])
        if phase != wanted and phase != "Succeeded" and "deletionTimestamp" not in pod["metadata"]:
            self.pool.submit(self._say, pod["metadata"]["name"], wanted)

    def _say(self, name: str, phase: str) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/status"
        status = {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
        with contextlib.suppress(ApiError):
            self.api.request("PATCH", path, {"status": status}, "application/merge-patch+json")


class Watch:
    """When each job was there and reached each state, as the API server tells it."""

    def __init__(self, api: Api) -> None:
        self.created: dict[str, float] = {}
        self.reached: dict[str, dict[str, float]] = {}
        self._last = time.monotonic()
        self._changed = threading.Condition()
        self.jobs = Informer(api, _JOBS, self._take)
        self.jobs.start()

    def _take(self, job: Object) -> None:
        with self._changed:
            self._last = time.monotonic()
            self.created.setdefault(key_of(job), self._last)
            state = job.get("status", {}).get("state")
            if state:
                self.reached.setdefault(state, {}).setdefault(key_of(job), self._last)
            self._changed.notify_all()

    def quiet(self) -> bool:
        """Whether no job has changed for some seconds."""
        return self.jobs.synced.is_set() and time.monotonic() - self._last > _QUIET

    def wait(self, state: str, count: int, seconds: float) -> None:
        """Return when so many jobs have reached a state. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.reached.get(state, {})) >= count, seconds):
                raise TimeoutError(f"{len(self.reached.get(state, {}))} of {count} jobs are {state} after {seconds} s")


@contextlib.contextmanager
def operator(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The operator's process, outside the cluster, by its service account."""
    ca = trustme.CA()
    server = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.crt")
    server.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    server.private_key_pem.write_to_path(folder / "tls.key")
    environment = {
        **os.environ, "KUBECONFIG": str(_with_token(folder)), "WATCH_NAMESPACE": NAMESPACE, "TRAINYARD_IMAGE": "none:1",
        "POD_NAMESPACE": NAMESPACE, "TRAINYARD_PROGRESS_URL": "https://localhost:18443", "TRAINYARD_TLS": str(folder),
        "TRAINYARD_PROGRESS_PORT": "18443", "TRAINYARD_METRICS_PORT": "18080",
    }  # fmt: skip
    with (folder / "operator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainyard_operator.main"], env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)


def _with_token(folder: Path) -> Path:
    """A kubeconfig by the token of the operator's service account."""
    config: Object = yaml.safe_load(kubeconfig().read_text())
    config["users"][0]["user"] = {
        "token": kubectl("create", "token", _ACCOUNT, "-n", NAMESPACE, "--duration=4h").strip()
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def job(index: int) -> Object:
    """A job of one worker whose pod no scheduler looks at."""
    spec = {
        "task": "text-classification", "model": {"source": "org/model"}, "data": {"train": {"source": "org/data"}},
        "storage": {"uri": "s3://runs"}, "schedulerName": "nobody",
    }  # fmt: skip
    meta = {"name": f"job-{index}", "namespace": NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec}


def bare(api: Api, count: int) -> float:
    """Jobs per second until each has its pod and every pod runs, when only the operator's writes are done."""
    kubelets = Kubelets(api)
    with concurrent.futures.ThreadPoolExecutor(_CREATORS) as pool:
        jobs = list(pool.map(functools.partial(_create, api), range(count)))
    ca = trustme.CA().cert_pem.bytes().decode()
    settings = render.Settings(image="none:1", progress_url="https://localhost:18443", ca=ca)
    writes = [_writes_of(found, settings) for found in jobs]
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(functools.partial(_write, api), writes))
    seconds_until(lambda: len(kubelets.running) >= count, 60 + count / 10)
    return count / (time.monotonic() - start)


def _writes_of(found: Object, settings: render.Settings) -> list[tuple[str, Object]]:
    """What the operator writes of a new job, in its order: paths and bodies, the first a status."""
    meta, (made, _) = found["metadata"], accepted(found, "None")
    assert made is not None
    owner = Owner.of(found)
    status = observe(made, owner, meta["generation"], {}, World(pods=[])).status
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"uid": meta["uid"]}, "status": status}
    token = render.ray_secret(owner, "0" * 64)
    objects = [*render.objects(made, owner, settings), token, render.pod(made, owner, settings, 0)]
    return [
        (f"{_JOBS}/{owner.name}/status", body),
        *((PATHS[each["kind"]].format(NAMESPACE), each) for each in objects),
    ]


def _write(api: Api, writes: list[tuple[str, Object]]) -> None:
    (status, body), *objects = writes
    api.apply(status, body)
    for collection, made in objects:
        api.create(collection, made)


def measure(api: Api, count: int, folder: Path) -> dict[str, float]:
    """Create so many jobs, let them run and complete, and take the times."""
    limit = 60 + count / 10
    kubelets = Kubelets(api)
    with operator(folder) as process:
        seconds_until(_leads, limit)
        before = psutil.Process(process.pid).memory_info().rss
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(_CREATORS) as pool:
        list(pool.map(functools.partial(_create, api), range(count)))
    created = time.monotonic() - start
    with operator(folder) as process:
        seconds_until(_leads, limit)
        start = time.monotonic()
        seconds_until(lambda: len(kubelets.running) >= count, limit)
        running = time.monotonic() - start
        watch = Watch(api)  # not before: what an observer costs is no part of it
        seconds_until(watch.quiet, limit)
        requests = sum(_metric("trainyard_api_requests_total", verb=verb) for verb in _WRITES)
        delays = _one_by_one(api, watch, count, limit)
        rss = psutil.Process(process.pid).memory_info().rss
    with operator(folder) as process:
        seconds_until(lambda: _metric("trainyard_reconciles_total") >= count + _ONE_BY_ONE, limit)
        seconds_until(watch.quiet, limit)
        idle = sum(_metric("trainyard_api_requests_total", verb=verb) for verb in _WRITES)
        rss = max(rss, psutil.Process(process.pid).memory_info().rss)
        start = time.monotonic()
        kubelets.end()
        watch.wait("Complete", count + _ONE_BY_ONE, limit)
        complete = time.monotonic() - start
        ending = sum(_metric("trainyard_api_requests_total", verb=verb) for verb in _WRITES) - idle
    quantiles = statistics.quantiles(delays, n=100)
    return {
        "jobs": count, "created_per_s": count / created, "running_per_s": count / running,
        "complete_per_s": (count + _ONE_BY_ONE) / complete, "p50_s": quantiles[49], "p99_s": quantiles[98],
        "rss_mb": rss / 1e6, "rss_per_job_mb": (rss - before) / 1e6 / (count + _ONE_BY_ONE),
        "writes_per_job": requests / count + ending / (count + _ONE_BY_ONE), "idle_writes": idle,
    }  # fmt: skip


def _leads() -> bool:
    return _metric("trainyard_api_requests_total", verb="PUT") >= 1


def _create(api: Api, index: int) -> Object:
    return api.request("POST", _JOBS, job(index))


def _one_by_one(api: Api, watch: Watch, first: int, limit: float) -> list[float]:
    """Seconds from the creation of each of some more jobs to its first status."""
    keys = []
    for index in range(first, first + _ONE_BY_ONE):
        keys.append(key_of(_create(api, index)))
        time.sleep(_PAUSE)
    watch.wait("Starting", first + _ONE_BY_ONE, limit)
    seconds_until(watch.quiet, limit)
    return [watch.reached["Starting"][key] - watch.created[key] for key in keys]


def _metric(name: str, **labels: str) -> float:
    """Sum of a metric of the operator; 0 while it does not answer."""
    try:
        text = urllib.request.urlopen("http://127.0.0.1:18080/metrics", timeout=5).read().decode()
    except OSError:
        return 0.0
    rows = [line for line in text.splitlines() if line.startswith(name)]
    wanted = [row for row in rows if all(f'{label}="{value}"' in row for label, value in labels.items())]
    return sum(float(row.rpartition(" ")[2]) for row in wanted)


@contextlib.contextmanager
def place() -> Iterator[Api]:
    """The bed with our resource known to all its controllers, and the operator's account in a namespace; then gone."""
    was_up = bed.is_up()
    bed.up()
    with contextlib.ExitStack() as stack:
        if not was_up:
            stack.callback(bed.down)
        kubectl("apply", "--server-side", "-f", str(CHART / "files/trainerjob.crd.yaml"))
        stack.callback(kubectl, "delete", "customresourcedefinition", "trainerjobs.trainyard.dev", timeout=3600)
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, "--wait=true", timeout=3600)
        kubectl("create", "serviceaccount", _ACCOUNT, "-n", NAMESPACE)
        role = ("--clusterrole=cluster-admin", f"--serviceaccount={NAMESPACE}:{_ACCOUNT}")
        kubectl("create", "clusterrolebinding", NAMESPACE, *role)
        stack.callback(kubectl, "delete", "clusterrolebinding", NAMESPACE)
        # Until the garbage collector watches our resource it asks for the owner of each object. One that knew it before
        # it was deleted takes its time to find it again; a new one does not.
        daemons.end("kube-controller-manager")
        bed.up()
        seconds_until(lambda: any(_WATCHED in line and line[-2:] != " 0" for line in _server_metrics()))
        yield Api.connect(str(kubeconfig()))


def _server_metrics() -> list[str]:
    return kubectl("get", "--raw", "/metrics").splitlines()


def one(part: str, count: int) -> None:
    """Print what so many jobs come to, as JSON: with the operator, or without."""
    with place() as api, tempfile.TemporaryDirectory() as folder:
        numbers = measure(api, count, Path(folder)) if part == _ONE else {"bare_per_s": bare(api, count)}
        print(json.dumps(numbers), flush=True)


def main(*counts: int) -> None:
    """Print the table and save the numbers."""
    rows = []
    for count in counts or (1000, 1000, 1000, 5000, 15000):
        row = {**_apart(_ONE, count), **_apart(_BARE, count)}
        row["of_bare"] = row["running_per_s"] / row["bare_per_s"]
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
        save("control_plane", rows)
    print("".join(f"{name:>17}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>17.4g}" for value in row.values()))
    shares = spread([row["of_bare"] for row in rows])
    print(f"to Running, of what the API server takes without an operator: {shares}")
    print("goals: ≥ 100/s at 1,000 and ≥ 43/s at 15,000, p99 ≤ 1 s at 1,000, ≤ 0.10 MB a job, 0 idle writes")


def _apart(part: str, count: int) -> dict[str, float]:
    """The numbers of one part, measured in a process of its own: its watches end with it."""
    command = [sys.executable, "-m", "bench.control_plane", part, str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


if __name__ == "__main__":
    if sys.argv[1:2] in ([_ONE], [_BARE]):
        one(sys.argv[1], int(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
