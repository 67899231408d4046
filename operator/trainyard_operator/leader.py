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


class Leader:
    """Holds the Lease, or waits for it."""

    def __init__(self, api: Api, namespace: str, name: str = "trainyard-operator") -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name, self._namespace = name, namespace
        self._me = f"{socket.gethostname()}_{os.getpid()}"
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed = 0.0

    def acquire(self) -> None:
        """Return when the Lease is ours."""
        while not self._try():
            time.sleep(_RETRY)  # a Lease that expires makes no event
        self._renewed = time.monotonic()
        log.info("leading as %s", self._me)

    def keep(self, lost: Callable[[], None]) -> None:
        """Renew in the background; call `lost` when another may have taken over."""
        threading.Thread(target=self._renew, name="lease", daemon=True).start()
        # In a thread of its own: a request that hangs may take longer than the Lease lasts.
        threading.Thread(target=self._watch, args=(lost,), name="lease watch", daemon=True).start()

    def release(self) -> None:
        """Give the Lease up, so that another need not wait for it to expire."""
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
            if lease and lease["spec"].get("holderIdentity") == self._me:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.request("PUT", f"{self._path}/{self._name}", lease)
        except ApiError as error:
            log.warning("the lease was not released: %s", error)

    def _renew(self) -> None:
        while True:
            time.sleep(_RETRY)
            begun = time.monotonic()
            if self._try():
                self._renewed = begun

    def _watch(self, lost: Callable[[], None]) -> None:
        while (left := self._renewed + _RENEW - time.monotonic()) > 0:
            time.sleep(left)
        lost()

    def _try(self) -> bool:
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
            if lease is None:
                body: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
                body |= {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec({})}
                self._api.request("POST", self._path, body)
                return True
            spec = lease["spec"]
            holder, stamp = spec.get("holderIdentity", ""), str(spec.get("renewTime"))
            if stamp != self._seen[0]:
                self._seen = (stamp, time.monotonic())
            fresh = time.monotonic() - self._seen[1] < spec.get("leaseDurationSeconds", _DURATION)
            if holder not in ("", self._me) and fresh:
                return False
            lease["spec"] = self._spec(spec)
            # The resourceVersion in it makes this fail when another was faster.
            self._api.request("PUT", f"{self._path}/{self._name}", lease)
            return True
        except ApiError as error:
            log.debug("lease: %s", error)
            return False

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
