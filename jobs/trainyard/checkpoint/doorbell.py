"""How a process reaches the uploader of its node: one JSON line over a Unix socket.

What is to be uploaded lies in files; the line only says that it is time to look, or asks to be told when a
checkpoint is settled. An uploader that has died is started again and finds everything there: who waits asks again.
"""

import json
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainyard.checkpoint.staging import Receipt, Run, Tickets
from trainyard.storage.layout import CheckpointId

_PAUSE = 0.1
_TICK = 30.0
"""Seconds after which who waits is called."""
SETTLED = {"settled": "yes"}
"""What is answered to who asked to be told."""


@dataclass(frozen=True)
class Metrics:
    """Where an attempt keeps metrics.jsonl on this node, and whose it is."""

    file: Path
    run: Run
    attempt: int

    def told(self) -> dict[str, object]:
        """As it goes over the socket."""
        return {"metrics": str(self.file), "run": asdict(self.run), "attempt": self.attempt}

    @classmethod
    def from_told(cls, told: dict[str, Any]) -> "Metrics":
        """What came over the socket. Raises KeyError when it says nothing of metrics."""
        return cls(Path(told["metrics"]), Run(**told["run"]), told["attempt"])


def ring(bell: Path, metrics: Metrics | None = None) -> None:
    """Say that there is something new. Silent when nobody hears it."""
    told = metrics.told() if metrics is not None else {}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(bell))
            connection.sendall(json.dumps(told).encode() + b"\n")
    except OSError:
        return  # it looks when it starts, and at the next ring


def settled(
    bell: Path, tickets: Tickets, identity: CheckpointId, last: bool = False, waits: Callable[[], None] | None = None
) -> Receipt:
    """Wait until it is known what became of a checkpoint's part on this node.

    `last`: the run ends, so that what an outage holds up is given up after a while, not kept for better times; when the
    node's disk cannot take a receipt, the answer is Failed, and what is staged may be committed all the same. `waits`
    is called again and again while it is not known.
    """
    while (receipt := tickets.receipt(identity)) is None:
        told = _ask(bell, {"settle": str(identity), "last": last}, _TICK if waits is not None else None)
        if "failed" in told:
            return Receipt("Failed", told["failed"])
        if waits is not None:
            waits()
    return receipt


def flush(bell: Path, timeout: float) -> None:
    """Wait until nothing is left that can be uploaded and committed now, for as many seconds at most.

    A full disk of this node is not waited for. For who is about to begin the next attempt: parts of other nodes are not
    waited for as long as else.
    """
    _ask_until(bell, {"settle": None}, timeout)


def keep(bell: Path, metrics: Metrics, timeout: float = 120.0) -> None:
    """Wait until metrics.jsonl is in storage, or could not be brought there, for as many seconds at most."""
    _ask_until(bell, {"keep": True, **metrics.told()}, timeout)


def _ask_until(bell: Path, told: dict[str, object], timeout: float) -> None:
    until = time.monotonic() + timeout
    while (left := until - time.monotonic()) > 0 and not _ask(bell, told, left):
        pass


def _ask(bell: Path, told: dict[str, object], timeout: float | None) -> dict[str, str]:
    """The answer; empty when none came."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(bell))
            connection.sendall(json.dumps(told).encode() + b"\n")
            if line := connection.makefile().readline():
                answer: dict[str, str] = json.loads(line)
                return answer
    except TimeoutError:
        return {}
    except (OSError, ValueError):
        pass
    time.sleep(_PAUSE)  # it has died, and is being started again
    return {}
