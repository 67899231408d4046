"""The operator's servers, in a network where anybody may connect and say nothing."""

import contextlib
import http.client
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from trainyard_operator import https
from trainyard_operator.https import serve


@contextlib.contextmanager
def served(context: ssl.SSLContext | None) -> Iterator[int]:
    """The port of a server that says hello, refuses at /refused, and raises at /bug."""

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/bug":
            raise LookupError
        start("401 Unauthorized" if environ["PATH_INFO"] == "/refused" else "200 OK", [("Content-Length", "5")])
        return [b"hello"]

    newest = None if context is None else lambda: context
    server = serve(app, 0, newest)
    try:
        yield server.bind_addr[1]
    finally:
        server.stop()


def hello(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    with connection.getresponse() as answer:
        return answer.read()


def test_clients_that_say_nothing_or_nonsense_keep_nobody_waiting() -> None:
    authority = trustme.CA()
    own, context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(own)
    authority.configure_trust(context)
    with served(own) as port, contextlib.ExitStack() as stack:
        for number in range(40):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            if number % 4 == 0:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=3, context=context)
        assert [hello(connection) for _ in range(3)] == [b"hello"] * 3, "also over one connection"
        connection.close()


def test_it_serves_without_tls() -> None:
    with served(None) as port:
        assert hello(http.client.HTTPConnection("127.0.0.1", port, timeout=3)) == b"hello"


def trickle(stranger: socket.socket, over: threading.Event) -> None:
    """Send one byte of a request after the other, until the other side has had enough."""
    with contextlib.suppress(OSError):
        for byte in b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + 1000 * b"x":
            stranger.sendall(bytes([byte]))
            if over.wait(0.1):
                return


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"], ids=["the same address", "another address"])
def test_slow_clients_keep_nobody_waiting(address: str) -> None:
    over = threading.Event()
    with served(None) as port, contextlib.ExitStack() as stack:
        stack.callback(over.set)
        for _ in range(3 * https._THREADS):
            stranger = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
            stack.enter_context(stranger)
            threading.Thread(target=trickle, args=(stranger, over)).start()
        for _ in range(5):
            assert hello(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) == b"hello"


@pytest.mark.parametrize("head", [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"], ids=["head", "body"])
def test_request_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(https, "_REQUEST_SECONDS", 0.3)
    with served(None) as port, socket.create_connection(("127.0.0.1", port), timeout=4) as stranger:
        stranger.sendall(head)
        while stranger.recv(1000):
            pass


def test_refusal_waits_for_no_body() -> None:
    with served(None) as port, socket.create_connection(("127.0.0.1", port), timeout=2) as stranger:
        stranger.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        answer = b""
        while part := stranger.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized")


def _reset(stranger: socket.socket) -> None:
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


NONSENSE: dict[str, Callable[[socket.socket], None]] = {
    "half a head": lambda stranger: stranger.sendall(b"GET / HT"),
    "no HTTP": lambda stranger: stranger.sendall(b"\x00\xff\r\n\r\n"),
    "another protocol": lambda stranger: stranger.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a huge header": lambda stranger: stranger.sendall(b"GET / HTTP/1.1\r\nX: " + 10**6 * b"x"),
    "half a body, and a reset": lambda stranger: (
        stranger.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"), _reset(stranger)
    )[1],
    "a reset": _reset,
}  # fmt: skip


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("act", NONSENSE.values(), ids=NONSENSE.keys())
def test_strangers_make_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, act: Callable[[socket.socket], None], tls: bool
) -> None:
    monkeypatch.setattr(https, "_REQUEST_SECONDS", 0.3)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(own)
    caplog.set_level(logging.INFO)
    with served(own if tls else None) as port, contextlib.suppress(OSError):
        stranger = socket.create_connection(("127.0.0.1", port), timeout=4)
        with stranger:
            act(stranger)
            while act is not _reset and stranger.recv(1000):
                pass
    assert [record.message for record in caplog.records if record.name.startswith("trainyard")] == []


def test_bug_of_the_application_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with served(None) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
        connection.request("GET", "/bug")
        assert connection.getresponse().status == 500
    assert [record.message for record in caplog.records if record.name.startswith("trainyard")] == ["/bug: a bug"]
