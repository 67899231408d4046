"""Progress events: JSON lines from rank 0 to whoever shows them, over a Unix socket.

A listener that is slow or gone must never hold training up, so the socket does not block and an event
that finds no place is dropped: the next one says the same and more.
"""

import json
import socket
from typing import Any


class Events:
    """The sending end."""

    def __init__(self, path: str | None, attempt: int | None = None) -> None:
        """`attempt`: whose events these are; None for those of a node."""
        self._source = {} if attempt is None else {"attempt": attempt}
        self._socket: socket.socket | None = None
        if path is None:
            return
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.connect(path)
            self._socket.setblocking(False)
        except OSError:
            self._socket = None

    def send(self, event: str, **fields: Any) -> None:
        """Tell an event; silent when nobody listens."""
        if self._socket is None:
            return
        try:
            self._socket.send(json.dumps({"event": event, **self._source, **fields}).encode())
        except BlockingIOError:
            return
        except OSError:
            self._socket = None
