"""What is told by training processes, and what of it is shown."""

from pathlib import Path

from trainyard.launch.listener import Listener
from trainyard.launch.node import Node
from trainyard.train.events import Events


def test_events_of_an_attempt_that_is_over_are_not_shown(tmp_path: Path) -> None:
    node = Node(tmp_path, tmp_path)
    listener = Listener(node)
    old, new = (Events(str(node.events_socket), attempt) for attempt in (1, 2))
    old.send("step", step=1)
    listener.tell({"event": "attempt", "attempt": 2, "resumed": None})
    old.send("step", step=2)
    new.send("step", step=1)
    listener.tell({"event": "note", "text": "of no attempt"})
    received = [listener.receive() for _ in range(5)]
    assert [event and event["event"] for event in received] == ["step", "attempt", None, "step", "note"]
