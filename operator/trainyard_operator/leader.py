"""Leader election by a Lease: of several operators one works, the others wait.

The protocol of client-go's leaderelection: a Lease is taken when it is free or has not been renewed for its
duration as observed here, so that clocks need not agree.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from trainyard_operator.api import Api, ApiError, Object

log = logging.getLogger(__name__)

_DURATION, _RENEW, _RETRY = 15, 10.0, 2.0
_NO_ANSWER = "the API server has not answered"


class Leader:
    """Holds the Lease, or waits for it."""

    def __init__(self, api: Api, namespace: str, name: str = "trainyard-operator") -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name, self._namespace = name, namespace
        self._me = f"{socket.gethostname()}_{os.getpid()}"
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed = 0.0
        self._refusal = ""
        """Why the last try did not get the Lease; empty while it runs, and when it did."""
        self._stopped = threading.Event()
        self._renewer: threading.Thread | None = None

    def acquire(self) -> bool:
        """Wait until the Lease is ours. Returns False when release() was called before that."""
        told = ""
        while not self._stopped.is_set():
            begun = time.monotonic()
            refusal = self._try()
            if refusal is None:
                self._renewed = begun
                log.info("leading as %s", self._me)
                return True
            if refusal != told:
                log.info("waiting for the lease %s: %s", self._name, refusal)
                told = refusal
            self._stopped.wait(_RETRY)  # a Lease that expires makes no event
        return False

    def keep(self, lost: Callable[[], None]) -> None:
        """Renew in the background; call `lost`, with an error in the log, when another may have taken over."""
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()
        # In a thread of its own: a request that hangs may take longer than the Lease lasts.
        threading.Thread(target=self._watch, args=(lost,), name="lease watch", daemon=True).start()

    def release(self) -> None:
        """Give the Lease up, so that another operator need not wait until it expires. Call it after the last pass."""
        self._stopped.set()
        if self._renewer is not None:
            self._renewer.join(_RENEW)
            if self._renewer.is_alive():  # its request may still take the Lease again
                log.warning("the lease %s was not released: its renewal hangs; it expires", self._name)
                return
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
            if lease and lease["spec"].get("holderIdentity") == self._me:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.request("PUT", f"{self._path}/{self._name}", lease)
        except ApiError as error:
            log.warning("the lease %s was not released: %s", self._name, error)

    def _renew(self) -> None:
        while not self._stopped.wait(_RETRY):
            begun = time.monotonic()
            self._refusal = ""
            refusal = self._try()
            if refusal is None:
                self._renewed = begun
            else:
                self._refusal = refusal

    def _watch(self, lost: Callable[[], None]) -> None:
        while (left := self._renewed + _RENEW - time.monotonic()) > 0:
            if self._stopped.wait(left):
                return
        log.error(
            "the lease %s could not be renewed for %.0f s: %s. This operator ends, because another may lead now",
            self._name, time.monotonic() - self._renewed, self._refusal or _NO_ANSWER,
        )  # fmt: skip
        lost()

    def _try(self) -> str | None:
        """Take or renew the Lease. Returns None when it is ours, else why not."""
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
            if lease is None:
                body: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
                body |= {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec({})}
                self._api.request("POST", self._path, body)
                return None
            holder = lease["spec"].get("holderIdentity", "")
            if holder not in ("", self._me) and self._is_fresh(lease["spec"]):
                return f"{holder} holds it"
            lease["spec"] = self._spec(lease["spec"])
            # The resourceVersion in it makes this fail when another was faster.
            self._api.request("PUT", f"{self._path}/{self._name}", lease)
        except ApiError as error:
            return str(error)
        return None

    def _is_fresh(self, spec: Object) -> bool:
        """Whether its holder has renewed the Lease within its duration, as seen from here."""
        stamp = str(spec.get("renewTime"))
        if stamp != self._seen[0]:
            self._seen = (stamp, time.monotonic())
        return bool(time.monotonic() - self._seen[1] < spec.get("leaseDurationSeconds", _DURATION))

    def _spec(self, before: Object) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        again = before.get("holderIdentity") == self._me
        return {
            "holderIdentity": self._me,
            "leaseDurationSeconds": _DURATION,
            "acquireTime": before.get("acquireTime", now) if again else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if again else 1),
        }
