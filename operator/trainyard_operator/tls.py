"""Where the progress server's certificates come from, and how a renewed one is taken into use without a gap.

Pods read the CA from a file that the kubelet brings up to date within two minutes. So a CA that pods do not know yet
is first published beside the one before it, and a certificate of it is served when every pod has both.
"""

import base64
import logging
import ssl
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from trainyard_operator.api import Api, ApiError, Object
from trainyard_operator.certificates import Certificates, issued, merged, renewed, trusts

log = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
"""Seconds between two looks at the source of the certificates."""
PUBLISH_SECONDS = 180.0
"""Seconds until every pod has a CA that was published: the kubelet needs up to two minutes."""
_RETRY_SECONDS = 2.0
_TRIES = 5
"""Another operator may write the Secret at the same moment: so often it is read again."""


class Source(Protocol):
    """Where certificates come from."""

    def current(self) -> Certificates:
        """The newest certificates. Raises ApiError, OSError or ValueError when there are none that can be used."""


class Folder:
    """Certificates that somebody else makes and renews: a Secret that is mounted, as cert-manager writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Certificates:
        """The certificates of tls.crt, tls.key and ca.crt. Raises ValueError that names what is missing."""
        texts = {}
        for name in ("tls.crt", "tls.key", "ca.crt"):
            try:
                texts[name] = (self._folder / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                raise ValueError(
                    f"the Secret with the certificates has no {name}. Fix: put tls.crt, tls.key and ca.crt (the CA "
                    "that pods trust) into the Secret of tls.existingSecret, or name an issuer that writes ca.crt in "
                    "tls.certManager.issuerRef"
                ) from None
        if not merged(texts["ca.crt"]):
            raise ValueError(
                "the Secret with the certificates has no PEM certificate in ca.crt. Fix: write the CA there"
            )
        return Certificates(authorities=texts["ca.crt"], certificate=texts["tls.crt"], key=texts["tls.key"])


class OwnSecret:
    """Certificates that the operator makes itself and keeps in a Secret of its own namespace."""

    def __init__(
        self, api: Api, namespace: str, name: str, host: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._host = host
        self._now = now
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"

    def current(self) -> Certificates:
        """The certificates of the Secret, made or renewed first where that is due. Raises ApiError."""
        for _ in range(_TRIES):
            secret = self._api.get(f"{self._collection}/{self._name}")
            before = _certificates_of(secret) if secret else None
            wanted = self._wanted(before)
            if wanted == before:
                return wanted
            if self._write(secret, wanted):
                log.info("new certificates are in the Secret %s/%s", self._namespace, self._name)
                return wanted
        raise ApiError(409, f"the Secret {self._namespace}/{self._name} changes all the time")

    def _wanted(self, before: Certificates | None) -> Certificates:
        if before is None:
            return issued(self._host, self._now())
        try:
            return renewed(before, self._host, self._now())
        except ValueError as error:
            log.warning("the Secret %s/%s cannot be read and is made again: %s", self._namespace, self._name, error)
            return issued(self._host, self._now())

    def _write(self, before: Object | None, certificates: Certificates) -> bool:
        """Write the Secret; False when another operator was faster."""
        texts = {
            "ca.crt": certificates.authorities, "ca.key": certificates.authority_key,
            "tls.crt": certificates.certificate, "tls.key": certificates.key,
        }  # fmt: skip
        meta: Object = {"name": self._name, "namespace": self._namespace, "labels": _LABELS}
        secret: Object = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": meta}
        secret["data"] = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        if before is None:
            return self._api.create(self._collection, secret)
        meta["resourceVersion"] = before["metadata"]["resourceVersion"]
        secret["type"] = before.get("type", "Opaque")
        try:
            self._api.request("PUT", f"{self._collection}/{self._name}", secret)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return False
        return True


# No app.kubernetes.io/instance: Argo CD would take the Secret for a part of the release, and prune it.
_LABELS = {
    "app.kubernetes.io/name": "trainyard-operator",
    "app.kubernetes.io/component": "operator",
    "app.kubernetes.io/part-of": "trainyard",
    "app.kubernetes.io/managed-by": "trainyard-operator",
}


class Tls:
    """Serves with the newest certificate that pods trust, and says what pods must trust."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        """Return when the source has certificates: its Secret may come later than the operator."""
        self._source = source
        self._clock = clock
        self._served, self._context = _first(source)
        self._serve_at = 0.0
        """Since when every pod trusts what the source has now, by the clock."""
        self.bundle = merged(self._served.authorities)
        """The CAs that pods must trust, PEM."""

    def context(self) -> ssl.SSLContext:
        """The context of a new connection."""
        return self._context

    def look(self) -> bool:
        """Take what the source has now into use, each part when its time has come.

        Returns whether `bundle` has changed. Raises what current() raises.
        """
        newest = self._source.current()
        wanted = merged(newest.authorities)
        if newest == self._served and self.bundle == wanted:
            return False
        if not trusts(self.bundle, wanted):
            self.bundle = merged(self._served.authorities, wanted)
            self._serve_at = self._clock() + PUBLISH_SECONDS
            return True
        if self._clock() < self._serve_at:
            return False
        self._context = _context(newest)
        self._served = newest
        changed = self.bundle != wanted
        self.bundle = wanted
        return changed

    def follow(self, publish: Callable[[str], None]) -> None:
        """Look once a minute, for ever, and publish each new bundle."""
        while True:
            time.sleep(_LOOK_SECONDS)  # neither a Secret that is mounted nor the time that passes makes an event
            try:
                if self.look():
                    publish(self.bundle)
            except (ApiError, OSError, ValueError) as error:
                log.warning("the certificates could not be renewed; the previous ones stay in use: %s", error)


def _first(source: Source) -> tuple[Certificates, ssl.SSLContext]:
    said = ""
    while True:
        try:
            certificates = source.current()
            return certificates, _context(certificates)
        except (ApiError, OSError, ValueError) as error:
            if str(error) != said:
                said = str(error)
                log.warning("no certificates yet: %s", said)
        time.sleep(_RETRY_SECONDS)


def _certificates_of(secret: Object) -> Certificates | None:
    """The certificates in a Secret; None where one of them is missing."""
    data = secret.get("data") or {}
    try:
        texts = {name: base64.b64decode(data[name]).decode() for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")}
    except (KeyError, ValueError):
        return None
    return Certificates(
        authorities=texts["ca.crt"],
        certificate=texts["tls.crt"],
        key=texts["tls.key"],
        authority_key=texts["ca.key"],
    )


def _context(certificates: Certificates) -> ssl.SSLContext:
    """A server's context. Raises ssl.SSLError, an OSError, when the key is not the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The standard library reads a key from a file only; of mode 0600, and gone at once.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{certificates.key}\n{certificates.certificate}")
        file.flush()
        context.load_cert_chain(file.name)
    return context
