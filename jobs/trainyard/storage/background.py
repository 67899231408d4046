"""An event loop in the background, for requests beside each other.

A call of obstore that a thread of Python waits in is driven by that thread: every packet wakes it for microseconds of
work. Asked from an event loop, obstore does all of it in threads of its own and wakes Python once a request: a sixth
less CPU for a checkpoint of 1 GB, and a quarter of the switches.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Within, a loop runs in a thread of its own; what is not done there at the end is cancelled."""
    started, ended = Future[asyncio.AbstractEventLoop](), asyncio.Event()

    async def serve() -> None:
        started.set_result(asyncio.get_running_loop())
        await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()], name="trainyard-requests", daemon=True)
    thread.start()
    loop = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
