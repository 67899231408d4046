"""The queue of keys to work on."""

import threading
import time

from trainyard_operator.queue import KeyQueue


def test_a_key_is_worked_on_once_at_a_time_and_again_when_it_changed_meanwhile() -> None:
    queue = KeyQueue()
    for _ in range(3):
        queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.take() == "b", "a is being worked on"
    queue.done("a")
    assert queue.take() == "a"


def test_a_failed_key_comes_again_later_and_a_closed_queue_lets_go() -> None:
    queue = KeyQueue()
    queue.add("a")
    start = time.monotonic()
    assert queue.take() == "a"
    queue.done("a", failed=True)
    assert queue.take() == "a"
    assert time.monotonic() - start >= 0.4
    taken: list[str | None] = []
    waiting = threading.Thread(target=lambda: taken.append(queue.take()))
    waiting.start()
    queue.close()
    waiting.join(5)
    assert taken == [None]
