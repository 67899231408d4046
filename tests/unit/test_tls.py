"""How renewed certificates are taken into use: by real handshakes, with the bundle that pods have at that moment."""

import base64
import http.client
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainyard_operator.api import ApiError
from trainyard_operator.certificates import Certificates, issued, renewed
from trainyard_operator.https import serve
from trainyard_operator.tls import PUBLISH_SECONDS, Folder, OwnSecret, Tls

HOST = "localhost"


class Clock:
    """Time that a test turns forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Secrets:
    """The Secrets of an API server, with its resource versions."""

    def __init__(self) -> None:
        self.secret: dict[str, Any] | None = None
        self.before_write: list[dict[str, Any]] = []
        """What another operator writes just before our own write."""

    def get(self, path: str) -> dict[str, Any] | None:
        assert path == "/api/v1/namespaces/system/secrets/own"
        return self.secret

    def create(self, path: str, body: dict[str, Any]) -> bool:
        self._overtake()
        if self.secret is not None:
            return False
        self._store(body)
        return True

    def request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert method == "PUT"
        self._overtake()
        if self.secret is None or body["metadata"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"]:
            raise ApiError(409, "changed", "Conflict")
        return self._store(body)

    def _overtake(self) -> None:
        if self.before_write:
            self._store(self.before_write.pop())

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        version = int(self.secret["metadata"]["resourceVersion"]) + 1 if self.secret else 1
        self.secret = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        return self.secret


def own(secrets: Secrets, now: datetime) -> OwnSecret:
    return OwnSecret(secrets, "system", "own", HOST, lambda: now)  # type: ignore[arg-type]


NOW = datetime.now(UTC)


def test_operator_keeps_its_certificates_over_restarts() -> None:
    secrets = Secrets()
    first = own(secrets, NOW).current()
    assert own(secrets, NOW + timedelta(days=9)).current() == first
    assert secrets.secret is not None
    assert base64.b64decode(secrets.secret["data"]["ca.crt"]).decode() == first.authorities
    assert "app.kubernetes.io/instance" not in secrets.secret["metadata"]["labels"], "Argo CD would prune it"


@pytest.mark.parametrize("exists", [False, True], ids=["create", "update"])
def test_the_faster_of_two_operators_wins(exists: bool) -> None:
    secrets = Secrets()
    other = Secrets()
    if exists:
        own(secrets, NOW - timedelta(days=300)).current()
    theirs = own(other, NOW).current()
    assert other.secret is not None
    secrets.before_write = [other.secret]
    assert own(secrets, NOW).current() == theirs


def test_damaged_secret_is_made_again() -> None:
    secrets = Secrets()
    own(secrets, NOW).current()
    assert secrets.secret is not None
    secrets.secret["data"]["tls.crt"] = base64.b64encode(b"nothing").decode()
    repaired = own(secrets, NOW).current()
    assert "BEGIN CERTIFICATE" in repaired.certificate
    assert own(secrets, NOW).current() == repaired


class Given:
    """A source that a test changes."""

    def __init__(self) -> None:
        self.certificates = issued(HOST, NOW - timedelta(days=250))

    def current(self) -> Certificates:
        return self.certificates


def hello(environ: dict[str, Any], start: Any) -> list[bytes]:
    start("200 OK", [("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture
def given() -> Given:
    return Given()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tls(given: Given, clock: Clock) -> Tls:
    return Tls(given, clock)


@pytest.fixture
def port(tls: Tls) -> Iterator[int]:
    server = serve(hello, 0, tls.context)
    yield server.bind_addr[1]
    server.stop()


def answers(port: int, bundle: str) -> bool:
    """Whether a pod that trusts this bundle reaches the server."""
    connection = http.client.HTTPSConnection(
        "localhost", port, timeout=5, context=ssl.create_default_context(cadata=bundle)
    )
    try:
        connection.request("GET", "/")
        return connection.getresponse().read() == b"hello"
    except ssl.SSLCertVerificationError:
        return False
    finally:
        connection.close()


def test_new_authority_is_served_when_pods_trust_it(given: Given, clock: Clock, tls: Tls, port: int) -> None:
    old = tls.bundle
    given.certificates = issued(HOST, NOW + timedelta(seconds=1))
    new = given.certificates.authorities
    assert tls.look()
    both = tls.bundle
    assert answers(port, old)
    assert answers(port, both)
    clock.seconds = PUBLISH_SECONDS - 1
    assert not tls.look()
    assert answers(port, old), "a pod may not have read the new bundle yet"
    clock.seconds = PUBLISH_SECONDS
    assert tls.look()
    assert answers(port, both)
    assert answers(port, new)
    assert not answers(port, old)
    assert tls.bundle == new
    assert not tls.look(), "nothing is published twice"


def test_renewed_certificate_is_served_at_once(given: Given, clock: Clock, tls: Tls, port: int) -> None:
    bundle = tls.bundle
    context = tls.context()
    given.certificates = renewed(given.certificates, HOST, NOW)
    assert not tls.look(), "pods trust its authority already"
    assert tls.context() is not context
    assert answers(port, bundle)
    assert clock.seconds == 0.0


def test_mounted_secret_is_read_again(tmp_path: Path) -> None:
    def write(certificates: Certificates) -> None:
        for name, text in {
            "tls.crt": certificates.certificate, "tls.key": certificates.key, "ca.crt": certificates.authorities,
        }.items():  # fmt: skip
            (tmp_path / name).write_text(text)

    first = issued(HOST, NOW)
    second = issued(HOST, NOW + timedelta(seconds=1))
    write(first)
    tls = Tls(Folder(tmp_path))
    write(second)
    assert tls.look()
    assert tls.bundle == first.authorities + second.authorities


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "ca.crt"])
def test_incomplete_secret_is_named(tmp_path: Path, missing: str) -> None:
    for name in {"tls.crt", "tls.key", "ca.crt"} - {missing}:
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=rf"the Secret with the certificates has no {missing}"):
        Folder(tmp_path).current()


def test_secret_without_authority_is_refused(tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match="has no PEM certificate"):
        Folder(tmp_path).current()
