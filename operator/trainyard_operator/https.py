"""HTTP and HTTPS for WSGI applications, in a network where anybody may connect and then say nothing.

cheroot as it is shakes hands where it accepts, so that one silent client makes all others wait.
"""

import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any

from cheroot.server import HTTPConnection
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server

log = logging.getLogger(__name__)

_THREADS, _BACKLOG = 8, 256
_SILENT_SECONDS = 5.0
"""A connection that says nothing for so long is closed."""


class _Patient(Server):
    """Gives a connection to a thread when something has come from it, not before."""

    def process_conn(self, conn: HTTPConnection) -> None:
        """See cheroot.server.HTTPServer.process_conn."""
        if conn.last_used is None:
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """See cheroot.server.HTTPServer.error_log; what strangers send is no error of ours."""
        log.log(level if level >= logging.ERROR else logging.DEBUG, "%s", msg, exc_info=traceback)


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
    server = _Patient(("0.0.0.0", port), app, numthreads=_THREADS, request_queue_size=_BACKLOG)  # noqa: S104 - a pod's
    server.timeout = _SILENT_SECONDS
    if tls is not None:
        server.ssl_adapter = _LateHandshake(tls)
    server.prepare()
    threading.Thread(target=server.serve, name=f"server on {port}", daemon=True).start()
    return server
