"""The operator's servers, in a network where anybody may connect and say nothing."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import trustme

from trainyard_operator.https import serve


@contextlib.contextmanager
def served(context: ssl.SSLContext | None) -> Iterator[int]:
    """The port of a server that says hello."""

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    server = serve(app, 0, (lambda: context) if context else None)
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
