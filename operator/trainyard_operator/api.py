"""The Kubernetes API in plain dictionaries: get, list, watch, create, apply, patch, delete.

The official client loads the configuration and keeps the connections; its generated models stay out of it, which
keeps memory small and what is written is what stands in the code.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import prometheus_client
import urllib3
from kubernetes import client, config
from kubernetes.client.rest import RESTClientObject

Object = dict[str, Any]
_REQUESTS = prometheus_client.Counter("trainyard_api_requests_total", "Requests to the API server.", ["verb"])

FIELD_MANAGER = "trainyard-operator"
_TIMEOUT = 30.0
_SILENT_SECONDS = 90.0
_TOKEN_SECONDS = 5.0
_WATCH_SECONDS = 280
"""The API server ends a watch after this; it is begun again from where it was."""
_NO_YAML = re.compile(r"[\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""What JSON may hold and YAML may not, https://yaml.org/spec/1.2.2/#51-character-set."""


class ApiError(Exception):
    """The API server refused; status 0 when it could not be reached. The reason is Kubernetes' own word for it."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Api:
    """A connection to an API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._configuration = configuration
        self._pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        self._token, self._ask_again = "", 0.0

    @classmethod
    def connect(cls, kubeconfig: str | None = None) -> "Api":
        """By the pod's service account; outside a cluster by a kubeconfig, KUBECONFIG's if none is given."""
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = 32
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            # Named here: the library has read the variable when it was imported.
            file = kubeconfig or os.environ.get("KUBECONFIG")
            config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration)

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        kind: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Object:
        """The answer to a request. Raises ApiError."""
        response = self._send(method, path, body, kind, query or {}, _TIMEOUT, preload=True)
        try:
            answer: Object = json.loads(response.data or b"{}")
        except ValueError:  # a proxy before the API server speaks, or it answers in haste
            words = response.data.decode(errors="replace").strip()[:200]
            raise ApiError(response.status if response.status >= 400 else 0, f"no JSON: {words}") from None
        if response.status >= 400:
            raise ApiError(response.status, str(answer.get("message", response.status)), str(answer.get("reason", "")))
        return answer

    def get(self, path: str) -> Object | None:
        """An object, or None when there is none."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, collection: str, body: Object) -> bool:
        """Create an object in a collection; False if there is one of that name. Raises ApiError, also for a typo."""
        try:
            query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
            self.request("POST", collection, body, query=query)
        except ApiError as error:
            if error.reason != "AlreadyExists":  # a quota's 409 is another
                raise
            return False
        return True

    def apply(self, path: str, body: Object) -> Object:
        """Server-side apply: the whole intent, owned by our field manager."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self.request("PATCH", path, body, "application/apply-patch+yaml", query)

    def delete(self, path: str, grace_seconds: int | None = None, uid: str | None = None) -> None:
        """Delete an object, if it is there and still the one with this uid."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", path, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def watch(self, path: str, resource_version: str, **query: str) -> Iterator[Object]:
        """Events of a collection after a version, until the server ends the watch. Raises ApiError (410: list anew)."""
        asked = {
            **query, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }  # fmt: skip
        # A watch that goes silent is cut by the read timeout: bookmarks come every minute.
        response = self._send("GET", path, None, "", asked, _SILENT_SECONDS, preload=False)
        try:
            if response.status >= 400:
                raise ApiError(response.status, response.reason or "")
            for line in _lines(response):
                try:
                    event: Object = json.loads(line)
                except ValueError as error:
                    raise ApiError(0, f"a watch told what is no JSON: {line[:200]!r}") from error
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), str(event["object"].get("message", "")))
                yield event
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, str(error)) from error
        finally:
            response.close()

    def _authorization(self) -> str:
        """The header; empty where a certificate says who we are. A service account's token is renewed while we run."""
        now = time.monotonic()
        if now >= self._ask_again:  # to ask takes the library as long as half a request
            found = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
            self._token, self._ask_again = str(found or ""), now + _TOKEN_SECONDS
        return self._token

    def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        kind: str,
        query: dict[str, str],
        timeout: float,
        preload: bool,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json"} | ({"Content-Type": kind} if body is not None else {})
        if token := self._authorization():
            headers["Authorization"] = token
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        _REQUESTS.labels("WATCH" if query.get("watch") else method).inc()
        try:
            return self._pool.request(
                method, url, headers=headers, body=_written(body) if body is not None else None,
                timeout=urllib3.Timeout(connect=10, read=timeout), preload_content=preload,
                retries=urllib3.Retry(connect=3, read=0, redirect=0, status=0, backoff_factor=0.2),
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, str(error)) from error


def _written(body: Object) -> bytes:
    """JSON that is YAML too: an apply is read as YAML, and a process may leave any bytes as its last words."""
    # Not in escapes: to YAML the two that JSON makes of one emoji are two characters, and forbidden ones.
    return _NO_YAML.sub("\N{REPLACEMENT CHARACTER}", json.dumps(body, ensure_ascii=False)).encode()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
