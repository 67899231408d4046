"""The operator's process: informers, workers, the progress server, metrics; one leader among replicas."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import prometheus_client

from trainyard_operator.api import Api, ApiError, Object
from trainyard_operator.gangs import KINDS, GangKind
from trainyard_operator.https import serve
from trainyard_operator.identity import JOB_LABEL, group_of, labels_of
from trainyard_operator.informer import Informer, key_of
from trainyard_operator.leader import Leader
from trainyard_operator.podstate import is_removed
from trainyard_operator.progress import Progress, Server
from trainyard_operator.queue import KeyQueue
from trainyard_operator.reconcile import JOBS, Reconciler
from trainyard_operator.render import Settings
from trainyard_operator.tls import Folder, OwnSecret, Source, Tls

log = logging.getLogger("trainyard_operator")

WORKERS = 4
_FINISH_SECONDS = 20.0
"""Seconds that passes have to end, of the 30 that Kubernetes gives the operator."""
_PASSES = prometheus_client.Counter("trainyard_reconciles_total", "Passes over a job.", ["outcome"])
_SECONDS = prometheus_client.Histogram("trainyard_reconcile_seconds", "Seconds of a pass over a job.")
_METRICS_APP = prometheus_client.make_wsgi_app()


class Operator:
    """Everything that runs in the operator's process."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.queue = KeyQueue()
        namespace = os.environ.get("WATCH_NAMESPACE")
        scope = f"/namespaces/{namespace}" if namespace else ""
        jobs = JOBS.replace("/trainerjobs", f"{scope}/trainerjobs")
        self.jobs = Informer(api, jobs, self._job_changed, alike=self._is_our_status)
        self.pods = Informer(api, f"/api/v1{scope}/pods", self._pod_changed, group_of, labelSelector=JOB_LABEL)
        self.nodes = Informer(api, "/api/v1/nodes", self._node_changed)
        self.progress = Progress(self.queue.add)
        self.reconciler = Reconciler(api, settings, self.jobs, self.pods, self.nodes, self.progress)
        self.leads = threading.Event()
        self._starting = threading.Lock()
        self._workers: list[threading.Thread] = []
        self.server = Server(api, self.jobs, self.pods, self.progress, self.leads)

    def start_watching(self) -> None:
        """Start the informers, and wait until they hold what is there."""
        for informer in (self.jobs, self.pods, self.nodes):
            informer.start()
        for informer in (self.jobs, self.pods, self.nodes):
            informer.synced.wait()

    def trust(self, authorities: str) -> None:
        """Have the pods of all jobs trust these certificate authorities (PEM)."""
        self.reconciler.trust(authorities)
        for key in list(self.jobs.objects):
            self.queue.add(key)

    def start_work(self) -> None:
        """Work on jobs from now on, and take reports of their pods: this operator leads."""
        self.leads.set()
        with self._starting:
            for number in range(WORKERS):
                worker = threading.Thread(target=self.work, name=f"worker {number}", daemon=True)
                worker.start()
                self._workers.append(worker)

    def finish(self) -> bool:
        """Start no further pass, and wait for the running ones. Returns whether all ended within _FINISH_SECONDS."""
        self.queue.close()
        until = time.monotonic() + _FINISH_SECONDS
        with self._starting:
            for worker in self._workers:
                worker.join(max(0.0, until - time.monotonic()))
            running = [worker.name for worker in self._workers if worker.is_alive()]
        if running:
            log.warning(
                "the lease is not released and will expire: a pass did not end in time (%s)", ", ".join(running)
            )
        return not running

    def work(self) -> None:
        """Work on jobs until the queue is closed."""
        while (key := self.queue.take()) is not None:
            failed = False
            try:
                with _SECONDS.time():
                    again = self.reconciler.reconcile(key)
                if again is not None:
                    self.queue.add(key, again)
            except ApiError as error:
                failed = True
                log.warning("%s: %s", key, error)
            except Exception:  # one job's surprise must not end the work on all others
                failed = True
                log.exception("%s: a bug", key)
            _PASSES.labels("failed" if failed else "done").inc()
            self.queue.done(key, failed)

    def _job_changed(self, job: Object) -> None:
        self.queue.add(key_of(job))

    def _is_our_status(self, before: Object, after: Object) -> bool:
        """Whether all that has changed of a job is what we wrote ourselves; a leader before us may have been late."""
        same = all(before["metadata"].get(name) == after["metadata"].get(name) for name in ("uid", "generation"))
        return same and self.reconciler.wrote(after)

    def _pod_changed(self, pod: Object) -> None:
        name = labels_of(pod).get(JOB_LABEL)  # a name that somebody made up is a job that is not there
        if not name:
            return
        key = f"{pod['metadata']['namespace']}/{name}"
        if is_removed(pod):
            self.reconciler.note_removed(key, pod)
        self.queue.add(key)

    def _node_changed(self, node: Object) -> None:
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", [])
        )
        if not ready:
            for pod in list(self.pods.objects.values()):
                if pod["spec"].get("nodeName") == node["metadata"]["name"]:
                    self._pod_changed(pod)


def main() -> None:
    """Run the operator until SIGTERM."""
    _log_as_json()
    # The first process of a pod ends by a signal only if it handles it. Until it has started, nothing is held.
    _on_end(lambda: os._exit(0))
    # Health and metrics apart from the reports: whatever comes from pods must not make the operator look dead. Before
    # all else: while it waits for the API server it must not look dead either.
    health = Health()
    watched = serve(health, int(os.environ.get("TRAINYARD_METRICS_PORT", "8080")))
    api = Api.connect()
    tls = Tls(_source(api))
    operator = Operator(api, _settings(tls.bundle))
    operator.start_watching()
    server = serve(operator.server, int(os.environ.get("TRAINYARD_PROGRESS_PORT", "8443")), tls.context)
    health.is_ready = True
    threading.Thread(target=tls.follow, args=(operator.trust,), name="tls", daemon=True).start()
    stopped = threading.Event()
    _on_end(stopped.set)
    leader = Leader(api, os.environ.get("POD_NAMESPACE", "default"))
    threading.Thread(target=_lead, args=(leader, operator), name="leader", daemon=True).start()
    stopped.wait()
    _hand_over(operator, leader)
    server.stop()
    watched.stop()


def _on_end(act: Callable[[], object]) -> None:
    """Call `act` on SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


class Health:
    """A WSGI application: /healthz (the process lives), /readyz (it takes reports), and the metrics everywhere else."""

    def __init__(self) -> None:
        self.is_ready = False

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        """Answer a request."""
        if environ["PATH_INFO"] not in ("/healthz", "/readyz"):
            return _METRICS_APP(environ, start)
        is_well = self.is_ready or environ["PATH_INFO"] == "/healthz"
        start("200 OK" if is_well else "503 Service Unavailable", [("Content-Length", "0")])
        return []


def _lead(leader: Leader, operator: Operator) -> None:
    if leader.acquire():
        leader.keep(lost=lambda: os._exit(1))  # the next pass must not happen: another may lead by now
        operator.start_work()


def _hand_over(operator: Operator, leader: Leader) -> None:
    """Let another lead. The Lease goes last, and only when no pass runs: until then nobody else may work."""
    if operator.finish():
        leader.release()


def _source(api: Api) -> Source:
    """Where the certificates come from: a Secret that is mounted, else the operator's own."""
    folder = os.environ.get("TRAINYARD_TLS")
    if folder:
        return Folder(Path(folder))
    host = urlsplit(os.environ["TRAINYARD_PROGRESS_URL"]).hostname or ""
    namespace = os.environ.get("POD_NAMESPACE", "default")
    return OwnSecret(api, namespace, os.environ.get("TRAINYARD_TLS_SECRET", "trainyard-operator-ca"), host)


def _settings(authorities: str) -> Settings:
    return Settings(
        image=os.environ["TRAINYARD_IMAGE"],
        progress_url=os.environ["TRAINYARD_PROGRESS_URL"],
        ca=authorities,
        grace_seconds=int(os.environ.get("TRAINYARD_GRACE_SECONDS", "120")),
        gang=_gang(os.environ.get("TRAINYARD_GANG", "None")),
    )


def _gang(name: str) -> GangKind:
    for kind in get_args(GangKind):
        if kind == name:
            return cast("GangKind", kind)
    sys.exit(f"TRAINYARD_GANG is {name!r}; it is one of {', '.join(KINDS)}")


def _log_as_json() -> None:
    class Json(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            row = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(), "level": record.levelname}
            row |= {"logger": record.name, "message": record.getMessage()}
            return json.dumps(row | ({"error": self.formatException(record.exc_info)} if record.exc_info else {}))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    main()
