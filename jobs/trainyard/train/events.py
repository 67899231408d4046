"""Progress events: JSON datagrams from rank 0 to the process that shows them, over a Unix socket.

Reporting must never hold training up or take it down. So the socket does not block, an event of a step that finds no
room is dropped, and a rare one waits half a second for room. Whatever user code logs becomes JSON here, in one place: a
value that JSON lacks is converted, and what is too long is cut. The receiver drops what it cannot read.
"""

import json
import math
import select
import socket
from collections.abc import Iterable, Mapping
from typing import Any

MAX_BYTES = 32 * 1024
"""Of one event. A datagram that is longer than the receiver's buffer would arrive cut, and then it is no JSON."""
_MAX_TEXT = 4000
"""Characters of one text: an exception's message may be megabytes."""
_MAX_ITEMS = 256
"""Of one list or mapping."""
_MAX_DEPTH = 4
_FREQUENT = ("step", "log", "evaluating")
"""Events that are dropped when the receiver is behind: the next one of the kind says the same and more."""
_PATIENCE = 0.5
"""Seconds that any other event waits for room. The kernel queues ten datagrams."""
_FIELDS: dict[str, tuple[str, ...]] = {
    "attempt": ("attempt", "resumed"),
    "checkpoint": ("id", "seconds"),
    "choices": ("rows",),
    "complete": ("url", "step"),
    "evaluating": ("step",),
    "final": ("url", "metrics"),
    "log": ("step",),
    "note": ("text",),
    "phase": ("text",),
    "restart": ("message", "plan"),
    "restore": ("id",),
    "set_aside": ("id", "reason"),
    "step": ("step", "total"),
    "train": ("step", "total"),
}
"""The events, each with the fields that its receiver relies on."""
_NUMBERS = ("step", "total", "seconds", "attempt")
"""Fields that are numbers wherever they occur."""


def plain(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """The value as JSON has it: None, bool, int, finite float, str, list or dict.

    NaN and infinity become None. A tensor or an array becomes a number or a list, a large one its type and shape. A set
    becomes a sorted list. Any other object becomes its text. Never raises.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return _short(value)
    if depth and isinstance(value, Mapping):
        return {_short(_text(key)): plain(each, depth - 1) for key, each in _first(value.items())}
    if depth and isinstance(value, set | frozenset):
        return [plain(each, depth - 1) for each in sorted(_first(value), key=_text)]
    if depth and isinstance(value, list | tuple):
        return [plain(each, depth - 1) for each in _first(value)]
    return _of_array(value, depth)


def encode(fields: Mapping[str, Any], limit: int = MAX_BYTES) -> bytes:
    """The fields as one JSON object of at most `limit` bytes: a field that no longer fits is left out."""
    parts: list[str] = []
    size = 2
    for name, value in fields.items():
        part = f"{json.dumps(_short(_text(name)))}: {json.dumps(plain(value))}"
        if size + len(part) + 2 <= limit:
            parts.append(part)
            size += len(part) + 2
    return f"{{{', '.join(parts)}}}".encode()


def led_by(head: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """`head` followed by `fields`. A field of the user's with a name from `head` is left out.

    encode() drops the last fields when they do not fit, and a reader cannot do without those of the head.
    """
    return {**head, **{name: value for name, value in fields.items() if name not in head}}


def decode(data: bytes) -> dict[str, Any] | None:
    """The event in a datagram; None for what is none: not JSON, or without a field that its receiver relies on."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    if any(name not in event for name in _FIELDS.get(event["event"], ())):
        return None
    if any(not isinstance(event[name], int | float) for name in _NUMBERS if name in event):
        return None
    return event


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

    def send(self, event: str, /, **fields: Any) -> None:
        """Send an event; silent when nobody listens. A field of the user's cannot take the place of the event's own."""
        if self._socket is None:
            return
        data = encode(led_by({"event": event, **self._source}, fields))
        try:
            if self._sent(data) or event in _FREQUENT:
                return
            _, has_room, _ = select.select([], [self._socket], [], _PATIENCE)
            if has_room:
                self._sent(data)
        except OSError:
            self._socket = None

    def _sent(self, data: bytes) -> bool:
        """Whether there was room for a datagram. Raises OSError when nobody listens any more."""
        assert self._socket is not None
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        return True


def _first(items: Iterable[Any]) -> list[Any]:
    return [each for each, _ in zip(items, range(_MAX_ITEMS), strict=False)]


def _short(text: str) -> str:
    """The text, cut in its middle when it is long: its first and its last words say most."""
    if len(text) > _MAX_TEXT:
        text = f"{text[: _MAX_TEXT // 2]} … {text[-_MAX_TEXT // 2 :]}"
    return text.encode("utf-8", "replace").decode()


def _of_array(value: Any, depth: int) -> Any:
    """What is neither JSON's nor Python's own: numbers of numpy and torch, their arrays, and any other object."""
    try:
        shape = getattr(value, "shape", None)
        if shape is not None and math.prod(shape) > _MAX_ITEMS:
            return f"{type(value).__name__} of shape {tuple(shape)}"
        if depth and shape is not None:
            return plain(value.tolist(), depth - 1)
    except Exception:  # noqa: BLE001 - whatever user code has logged, training goes on
        return f"<{type(value).__name__}>"
    return _short(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an object of the user's
        return f"<{type(value).__name__}>"
