"""What rank 0 of each job reported last, and the HTTPS server that takes the reports.

The contract is that of transformers' KubeflowCallback, so that an unmodified Trainer reports too: a POST with
{"trainerStatus": {"progressPercentage", "estimatedRemainingSeconds", "metrics": [{"name", "value"}]}} and a
bearer token. The token is a projected one, bound to a pod and to our audience; TokenReview says which pod.
"""

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from trainyard.spec.model import API_VERSION
from trainyard.storage.layout import CheckpointId
from trainyard_operator.api import Api, ApiError, Object
from trainyard_operator.identity import Owner, belongs
from trainyard_operator.informer import Informer
from trainyard_operator.render import AUDIENCE

_PATH = re.compile(rf"/apis/{re.escape(API_VERSION)}/namespaces/([^/]+)/trainerjobs/([^/]+)/progress$")
_MAX_BODY = 64 * 1024
_REVIEWED_SECONDS = 60.0
_MIN_INTERVAL = 0.5
"""Seconds between two reports of a pod; more often is answered with 429."""
_STRANGER_SECONDS = 1.0
"""For so long an address whose token was refused is not listened to: each review is a request to the API server."""
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("step", "total", "attempt", "reached"), int),
    "free": bool,
    **dict.fromkeys(("step_seconds", "eta_seconds", "goodput_share"), (int, float)),
    "loss": (int, float, type(None)),
    **dict.fromkeys(("checkpoint", "phase", "resumed", "cause", "complete"), (str, type(None))),
}
"""What the parts of a report are that the operator works with."""
_OUR_OWN = ("eta", "reported", "moved")
"""What the operator finds out itself, whatever a Trainer calls its metrics."""

Wsgi = Callable[[str, list[tuple[str, str]]], Any]


class RefusedError(Exception):
    """A report that is not taken, with its HTTP status."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Progress:
    """The newest report of each job, by namespace/name and uid: a job of the same name may have been there before."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._reports: dict[str, tuple[str, dict[str, Any]]] = {}

    def get(self, key: str, uid: str) -> dict[str, Any]:
        """The newest numbers of a job; empty before the first report."""
        of, values = self._reports.get(key, ("", {}))
        return values if of == uid else {}

    def forget(self, key: str) -> None:
        """The job is gone."""
        self._reports.pop(key, None)

    def take(self, key: str, uid: str, report: Object) -> None:
        """Keep a report, in Kubeflow's words or with ours beside them."""
        values = _checked(report.get("trainyard") or _from_kubeflow(report.get("trainerStatus", {})))
        for ours in _OUR_OWN:
            values.pop(ours, None)
        known = self.get(key, uid)
        if not known:
            self.forget(key)
        if known.get("attempt", 0) > values.get("attempt", known.get("attempt", 0)):
            return  # of an attempt that is over
        newer = bool(known) and values.get("attempt", 0) > known.get("attempt", 0)
        reached = max(known.get("step", 0), values.get("reached", 0)) if newer else known.get("reached", 0)
        if newer and "step" not in values:  # of a driver that has only begun
            values["step"] = CheckpointId.step_of(values.get("resumed"))
        # Rank 0 may be on another node than the driver: each tells its part.
        eta = values.pop("eta_seconds", None)
        values = {**known, **values, "reached": reached}
        if newer or values.get("phase") == "restarting":  # the estimate was of the attempt before
            values.pop("eta", None)
        if eta is not None:
            values["eta"] = int(eta)
        now, place = time.time(), [values.get(name) for name in ("attempt", "step")]
        if not known or place != [known.get(name) for name in ("attempt", "step")]:
            values["moved"] = now
        self._reports[key] = (uid, {**values, "reported": now})
        self._changed(key)


class Server:
    """A WSGI application that takes the reports."""

    def __init__(self, api: Api, jobs: Informer, pods: Informer, progress: Progress, leads: threading.Event) -> None:
        self._api, self._jobs, self._pods, self._progress, self._leads = api, jobs, pods, progress, leads
        self._reviewed: dict[str, tuple[float, tuple[str, str]]] = {}
        self._last: dict[str, float] = {}
        self._strangers: dict[str, float] = {}
        """By address: until when its tokens are not reviewed."""
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Wsgi) -> Iterable[bytes]:
        """Answer a request."""
        status = "200 OK"
        try:
            self._report(environ)
        except RefusedError as error:
            status = error.status
        except ApiError:
            status = "503 Service Unavailable"
        body = b"{}\n"
        start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _report(self, environ: dict[str, Any]) -> None:
        found = _PATH.match(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] != "POST" or not found:
            raise RefusedError("404 Not Found")
        if not self._leads.is_set():  # a report that only waits here is lost; sent again it comes to the leader
            raise RefusedError("503 Service Unavailable")
        key = "/".join(found.groups())
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if not 0 < length <= _MAX_BODY:
            raise RefusedError("413 Content Too Large")
        # The token before the body: who has none is not waited for.
        speaker, uid = self._pod_of(environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", ""))
        job, pod = self._jobs.objects.get(key), self._pods.objects.get(speaker)
        # By its uid: what a pod that was deleted by force still does is no news of the job.
        if job is None or pod is None or pod["metadata"]["uid"] != uid or not belongs(pod, Owner.of(job)):
            raise RefusedError("403 Forbidden")
        with self._lock:
            now = time.monotonic()
            if now - self._last.get(speaker, 0.0) < _MIN_INTERVAL:
                raise RefusedError("429 Too Many Requests")
            self._last = {pod: last for pod, last in self._last.items() if now - last < _MIN_INTERVAL}
            self._last[speaker] = now
        try:
            body = environ["wsgi.input"].read(length)
        except OSError as error:  # its deadline is over
            raise RefusedError("408 Request Timeout") from error
        try:
            self._progress.take(key, job["metadata"]["uid"], json.loads(body))
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
            raise RefusedError("400 Bad Request") from error

    def _pod_of(self, header: str, address: str) -> tuple[str, str]:
        """namespace/name and uid of the pod that a token is bound to; reviewed once a minute. Raises RefusedError."""
        scheme, _, token = header.partition(" ")
        if scheme != "Bearer" or not token:
            raise RefusedError("401 Unauthorized")
        digest = hashlib.sha256(token.encode()).hexdigest()
        now = time.monotonic()
        until, pod = self._reviewed.get(digest, (0.0, ("", "")))
        if now < until:
            return pod
        if now < self._strangers.get(address, 0.0):
            raise RefusedError("429 Too Many Requests")
        review = {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }  # fmt: skip
        answer = self._api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
        extra = answer.get("user", {}).get("extra", {})
        names, uids = (extra.get(f"authentication.kubernetes.io/pod-{what}", []) for what in ("name", "uid"))
        account = answer.get("user", {}).get("username", "").split(":")
        if (
            not answer.get("authenticated")
            or AUDIENCE not in answer.get("audiences", [])
            or not names
            or not uids
            or len(account) != 4
        ):
            with self._lock:
                self._strangers = {known: end for known, end in self._strangers.items() if end > now}
                self._strangers[address] = now + _STRANGER_SECONDS
            raise RefusedError("401 Unauthorized")
        pod = (f"{account[2]}/{names[0]}", uids[0])
        with self._lock:
            self._reviewed = {key: kept for key, kept in self._reviewed.items() if kept[0] > now}
            self._reviewed[digest] = (now + _REVIEWED_SECONDS, pod)
        return pod


def _checked(values: Object) -> dict[str, Any]:
    """A report without what is not of its kind, or no number. Raises AttributeError when it is no mapping."""
    of_kind = {name: value for name, value in values.items() if isinstance(value, _KINDS.get(name, object))}
    return {name: value for name, value in of_kind.items() if not isinstance(value, float) or math.isfinite(value)}


def _from_kubeflow(status: Object) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for metric in status.get("metrics") or []:
        try:
            values[str(metric["name"])] = float(metric["value"])
        except (KeyError, TypeError, ValueError):
            continue
    named = {"current_step": "step", "total_steps": "total"}
    told: dict[str, float] = {ours: int(values[theirs]) for theirs, ours in named.items() if theirs in values}
    left = status.get("estimatedRemainingSeconds")
    if isinstance(left, int | float):
        told["eta_seconds"] = left
    return {**values, **told, "phase": "training"}
