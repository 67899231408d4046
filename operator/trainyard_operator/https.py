"""HTTP and HTTPS for WSGI applications, in a network where anybody may connect and then say little or nothing.

cheroot as it is shakes hands where it accepts, so that one silent client makes all others wait, and it waits for each
byte anew, so that a client that sends one byte a second keeps a thread for hours. Here a thread takes a connection
when something has come from it, a whole request has a deadline, and slow requests of one address make room for its
next ones, so that it never holds all threads.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server

log = logging.getLogger(__name__)

_THREADS, _BACKLOG = 32, 256
_OF_ONE_ADDRESS = 8
"""Requests of one address at a time: one more cuts the oldest of them. Pods may share a node's address, and take
milliseconds each, so the oldest is one that dawdles."""
_SILENT_SECONDS = 5.0
"""A connection that says nothing for so long is closed."""
_REQUEST_SECONDS = 5.0
"""Seconds that a whole request may take, from the handshake to the answer; the reporter waits as long."""


class _Deadlines(threading.Thread):
    """Cuts connections whose request takes too long. All have one limit, so the first to begin is the first due."""

    def __init__(self) -> None:
        super().__init__(name="deadlines of requests", daemon=True)
        self._changed = threading.Condition()
        self._due: dict[HTTPConnection, float] = {}

    def begin(self, connection: HTTPConnection) -> None:
        """A request begins; when its address has too many of them, the oldest is cut."""
        with self._changed:
            others = [each for each in self._due if each.remote_addr == connection.remote_addr]
            oldest = others[0] if len(others) >= _OF_ONE_ADDRESS else None
            if oldest is not None:
                del self._due[oldest]
            self._due[connection] = time.monotonic() + _REQUEST_SECONDS
            self._changed.notify()
        if oldest is not None:
            _cut(oldest.socket)

    def end(self, connection: HTTPConnection) -> None:
        """A request that has begun is over."""
        with self._changed:
            self._due.pop(connection, None)

    def run(self) -> None:
        """Wait for the next deadline, for ever."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due)
                connection, due = next(iter(self._due.items()))
                left = due - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._due[connection]
            _cut(connection.socket)


def _cut(connection: socket.socket) -> None:
    """Make the thread that reads from a socket see its end."""
    with contextlib.suppress(OSError):  # it may be closed already
        # That of the plain socket: TLS would wait for the other side.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Request(HTTPRequest):
    """Closes the connection after a refusal: the rest of a body that nobody wants is not waited for."""

    def send_headers(self) -> None:
        """See cheroot.server.HTTPRequest.send_headers."""
        if bytes(self.status).startswith(b"4"):  # type: ignore[arg-type]  # its stub says str
            self.close_connection = True
        super().send_headers()


class _Connection(HTTPConnection):
    """A connection whose requests have a deadline."""

    RequestHandlerClass = _Request

    def communicate(self) -> bool:
        """See cheroot.server.HTTPConnection.communicate."""
        self.server.deadlines.begin(self)
        try:
            return bool(super().communicate())  # type: ignore[no-untyped-call]
        finally:
            self.server.deadlines.end(self)


class _Patient(Server):
    """Gives a connection to a thread when something has come from it, not before."""

    ConnectionClass = _Connection

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.deadlines = _Deadlines()
        self.deadlines.start()

    def process_conn(self, conn: HTTPConnection) -> None:
        """See cheroot.server.HTTPServer.process_conn."""
        if conn.last_used is None:
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """See cheroot.server.HTTPServer.error_log; what strangers send, or leave unsaid, is no error of ours."""
        log.log(level if level >= logging.CRITICAL else logging.DEBUG, "%s", msg, exc_info=traceback)


class _LateHandshake(BuiltinSSLAdapter):
    """Shakes hands at the first read, in the thread that reads, with the certificate of that moment."""

    def __init__(self, newest: Callable[[], ssl.SSLContext]) -> None:
        # Not the one of the class, which reads one certificate for ever.
        self._newest = newest

    def wrap(self, sock: Any) -> tuple[Any, dict[str, Any]]:
        """See cheroot.ssl.Adapter.wrap."""
        return self._newest().wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {"HTTPS": "on"}


def serve(app: Any, port: int, tls: Callable[[], ssl.SSLContext] | None = None) -> Server:
    """Serve an application on all addresses from now on. `tls` gives the context of each new connection."""
    address = ("0.0.0.0", port)  # noqa: S104 - a pod's
    server = _Patient(address, _logged(app), numthreads=_THREADS, request_queue_size=_BACKLOG)
    server.timeout = _SILENT_SECONDS
    if tls is not None:
        server.ssl_adapter = _LateHandshake(tls)
    server.prepare()
    threading.Thread(target=server.serve, name=f"server on {port}", daemon=True).start()
    return server


def _logged(app: Any) -> Any:
    """The application, with what it raises in the log: the server cannot tell that from what strangers cause."""

    def call(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        try:
            answer: Iterable[bytes] = app(environ, start)
        except Exception:
            log.exception("%s: a bug", environ.get("PATH_INFO"))
            raise
        return answer

    return call
