"""How many jobs the operator carries, on the bed's real API server, with pods that only say that they run.

    python -m bench.control_plane [jobs …]

The operator's own process runs on this machine against the API server. The jobs' pods are bound to no node; a part of
this benchmark says of each that it runs, reports progress as its agent would, and says at last that it has succeeded.
What it costs the API server and the two cores is in the times: both share them with the operator.
"""

import concurrent.futures
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import trustme

from bench.common import save
from tests.bed import cluster as bed
from tests.bed.kubectl import apply, kubeconfig, kubectl
from tests.cluster.conftest import CHART
from trainyard_operator.api import Api, ApiError
from trainyard_operator.informer import Informer, key_of
from trainyard_operator.reconcile import JOBS

NAMESPACE = "bench-control-plane"
_CREATORS = 4
Object = dict[str, Any]


class Kubelets:
    """Says of every pod of a job that it runs, and when told to, that it has succeeded."""

    def __init__(self, api: Api) -> None:
        self.api, self.ending = api, False
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
        if phase != wanted and phase != "Succeeded" and "deletionTimestamp" not in pod["metadata"]:
            self.pool.submit(self._say, pod["metadata"]["name"], wanted)

    def _say(self, name: str, phase: str) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/status"
        with contextlib.suppress(ApiError):
            self.api.request("PATCH", path, {"status": {"phase": phase}}, "application/merge-patch+json")


class Watch:
    """When each job reached each state, as the API server tells it; and every change of a job's status."""

    def __init__(self, api: Api) -> None:
        self.created: dict[str, float] = {}
        self.reached: dict[str, dict[str, float]] = {}
        self.writes = 0
        self._changed = threading.Condition()
        self.jobs = Informer(api, JOBS.replace("/trainerjobs", f"/namespaces/{NAMESPACE}/trainerjobs"), self._take)
        self.jobs.start()

    def _take(self, job: Object) -> None:
        with self._changed:
            self.writes += 1
            state = job.get("status", {}).get("state")
            if state:
                self.reached.setdefault(state, {}).setdefault(key_of(job), time.monotonic())
            self._changed.notify_all()

    def wait(self, state: str, count: int, seconds: float) -> None:
        """Return when so many jobs have reached a state. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.reached.get(state, {})) >= count, seconds):
                raise TimeoutError(f"{len(self.reached.get(state, {}))} of {count} jobs are {state} after {seconds} s")


@contextlib.contextmanager
def operator(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The operator's process, outside the cluster, with the administrator's rights."""
    ca = trustme.CA()
    server = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.crt")
    server.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    server.private_key_pem.write_to_path(folder / "tls.key")
    environment = {
        **os.environ, "KUBECONFIG": str(kubeconfig()), "WATCH_NAMESPACE": NAMESPACE, "TRAINYARD_IMAGE": "none:1",
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


def job(index: int) -> Object:
    """A job of one worker whose pod no scheduler looks at."""
    spec = {
        "task": "text-classification", "model": {"source": "org/model"}, "data": {"train": {"source": "org/data"}},
        "storage": {"uri": "s3://runs"}, "schedulerName": "nobody",
    }  # fmt: skip
    meta = {"name": f"job-{index}", "namespace": NAMESPACE}
    return {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainerJob", "metadata": meta, "spec": spec}


def measure(api: Api, count: int, folder: Path) -> dict[str, float]:
    """Create so many jobs, let them run and complete, and take the times."""
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    with operator(folder) as process:
        memory = psutil.Process(process.pid)
        watch, kubelets = Watch(api), Kubelets(api)
        watch.jobs.synced.wait()
        time.sleep(3)  # the operator's own informers
        before = memory.memory_info().rss
        start = time.monotonic()
        path = JOBS.replace("/trainerjobs", f"/namespaces/{NAMESPACE}/trainerjobs")

        def create(index: int) -> None:
            api.request("POST", path, job(index))
            watch.created[f"{NAMESPACE}/job-{index}"] = time.monotonic()

        with concurrent.futures.ThreadPoolExecutor(_CREATORS) as pool:
            list(pool.map(create, range(count)))
        limit = 60 + count / 10
        watch.wait("Starting", count, limit)
        started = time.monotonic() - start
        delays = [watch.reached["Starting"][key] - created for key, created in watch.created.items()]
        running = _until_running(kubelets, count, limit) - start
        writes = watch.writes
        time.sleep(10)  # nothing has changed meanwhile, and nothing may be written
        idle = watch.writes - writes
        ending = time.monotonic()
        kubelets.end()
        watch.wait("Complete", count, limit)
        complete = time.monotonic() - ending
        rss = memory.memory_info().rss
        metrics = _requests()
    kubectl("delete", "namespace", NAMESPACE, "--wait=true", timeout=1200)
    quantiles = statistics.quantiles(delays, n=100)
    return {
        "jobs": count, "running_per_s": count / running, "complete_per_s": count / complete, "started_s": started,
        "p50_s": quantiles[49], "p99_s": quantiles[98], "rss_mb": rss / 1e6,
        "rss_per_job_mb": (rss - before) / 1e6 / count, "requests_per_job": metrics / count, "idle_writes": idle,
    }  # fmt: skip


def _until_running(kubelets: Kubelets, count: int, limit: float) -> float:
    deadline = time.monotonic() + limit
    while True:
        phases = Counter(pod.get("status", {}).get("phase") for pod in list(kubelets.pods.objects.values()))
        if phases["Running"] >= count:
            return time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError(f"pods: {dict(phases)}")
        time.sleep(0.1)


def _requests() -> float:
    import urllib.request

    text = urllib.request.urlopen("http://127.0.0.1:18080/metrics", timeout=5).read().decode()
    rows = [line for line in text.splitlines() if line.startswith("trainyard_api_requests_total")]
    return sum(float(line.rpartition(" ")[2]) for line in rows)


def main(*counts: int) -> None:
    """Print the table and save the numbers."""
    was_up = bed.is_up()
    bed.up()
    kubectl("apply", "--server-side", "-f", str(CHART / "files/trainerjob.crd.yaml"))
    os.environ["KUBECONFIG"] = str(kubeconfig())
    rows = []
    try:
        for count in counts or (1000, 5000, 15000):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(Api.connect(), count, Path(folder)))
            print(json.dumps(rows[-1]), file=sys.stderr)
    finally:
        kubectl("delete", "customresourcedefinition", "trainerjobs.trainyard.dev", timeout=600)
        if not was_up:
            bed.down()
    columns = ("jobs", "running_per_s", "complete_per_s", "p50_s", "p99_s", "rss_mb", "rss_per_job_mb")
    columns = (*columns, "requests_per_job", "idle_writes")
    print("".join(f"{name:>18}" for name in columns))
    for row in rows:
        print("".join(f"{row[name]:>18.4g}" for name in columns))
    print("goals: ≥ 100/s at 1,000 and ≥ 43/s at 15,000, p99 ≤ 1 s at 1,000, ≤ 0.10 MB a job, 0 idle writes")
    save("control_plane", rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
