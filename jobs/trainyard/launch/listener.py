"""The receiving end of the events, on the node that shows them."""

import contextlib
import socket
from typing import Any

from trainyard.launch.node import Node
from trainyard.train import events

_BUFFER = 2 * events.MAX_BYTES


class Listener:
    """Takes the events of the training processes and of this process itself, in the order in which they come."""

    def __init__(self, node: Node) -> None:
        self._address = str(node.events_socket)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._newest = 0

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

    def receive(self) -> dict[str, Any] | None:
        """The next event; None in place of what is no event, and of one from an attempt that is over.

        The processes of such an attempt may outlive it, and anything on this node may write to the socket.
        """
        event = events.decode(self._socket.recv(_BUFFER))
        if event is None:
            return None
        attempt = event.get("attempt", self._newest)
        if attempt < self._newest:
            return None
        self._newest = attempt
        return event

    def tell(self, event: dict[str, Any], wait: bool = True) -> None:
        """Have this process's own event received in its turn.

        With `wait=False` an event that finds the queue full is dropped: for a signal handler, which interrupts
        the very thread that empties the queue.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            sender.setblocking(wait)
            sender.sendto(events.encode(event), self._address)
