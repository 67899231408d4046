"""A proxy in front of an HTTP server that can be told to fail: slow, narrow, broken, silent, or in error."""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

_CHUNK = 1 << 16
_FAILED = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


@dataclass(frozen=True)
class Fault:
    """What is wrong with the way; several at once are possible."""

    latency: float = 0.0
    """Seconds that each request waits before it is passed on."""
    bandwidth: int | None = None
    """Bytes per second each way, for each connection."""
    status: int | None = None
    """HTTP status that answers every request instead of the server, e.g. 503."""
    reset: bool = False
    """Whether connections are reset, those that are open too."""
    hang: bool = False
    """Whether nothing is passed on, while connections are accepted and stay open."""
    fail_complete: bool = False
    """Whether the end of an upload in parts is answered with 200 and an error in the body, as S3 may."""


_NONE = Fault()


class FaultyProxy:
    """A proxy that passes bytes on until it is told otherwise."""

    def __init__(self, upstream: str, host: str = "127.0.0.1") -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._fault = _NONE
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server((host, 0))
        self.endpoint = f"http://{host}:{self._socket.getsockname()[1]}"
        """Where clients connect; requests must be signed for this address."""
        self.requests = 0
        """Connections that were accepted."""
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._connected, sock=self._socket)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()

    @contextlib.contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """Let a fault hold for a block. Connections that are open are cut, so that it meets every request."""
        self._set(fault)
        try:
            yield
        finally:
            self._set(_NONE)

    def close(self) -> None:
        """End the proxy and every connection."""

        async def end() -> None:
            self._server.close()
            self._cut()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _set(self, fault: Fault) -> None:
        async def change() -> None:
            self._fault = fault
            self._cut()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    def _cut(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side went away: that is what this is for
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._fault
        if fault.reset:
            _reset(writer)
            return
        if fault.hang:
            await asyncio.Event().wait()
        if fault.status is not None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {fault.status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            # Closing with unread bytes would be a reset, and the answer lost.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while await reader.read(_CHUNK):
                        pass
            return
        there, up = await asyncio.open_connection(*self._upstream)
        self._writers.add(up)
        try:
            async with asyncio.TaskGroup() as both:
                kept: _Readable = _Completed(reader, writer) if fault.fail_complete else reader
                both.create_task(_pass(kept, up, fault))
                both.create_task(_pass(there, writer, Fault(bandwidth=fault.bandwidth)))
        except* OSError:
            pass
        finally:
            self._writers.discard(up)
            up.close()


class _Completed:
    """A client's bytes without its requests to complete an upload in parts, which are answered here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, size: int) -> bytes:
        """The next bytes for the server. A request begins a chunk: clients wait for the answer to the one before."""
        while (chunk := await self._reader.read(size)).startswith(b"POST ") and b"uploadId=" in chunk.split(b"\r\n")[0]:
            head, _, body = chunk.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            assert length is not None, head
            while len(body) < int(length[1]):
                body += await self._reader.read(size)
            self._writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_FAILED), _FAILED))
            await self._writer.drain()
        return chunk


class _Readable(Protocol):
    async def read(self, size: int) -> bytes: ...


async def _pass(reader: _Readable, writer: asyncio.StreamWriter, fault: Fault) -> None:
    while chunk := await reader.read(_CHUNK):
        await asyncio.sleep(fault.latency + (len(chunk) / fault.bandwidth if fault.bandwidth else 0))
        writer.write(chunk)
        await writer.drain()
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
