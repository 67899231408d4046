"""A store that costs this machine next to nothing: it speaks S3 at the speed it is told, and keeps sizes.

A real server here would take nine seconds of this machine's two cores for each GB (measured of SeaweedFS), which no
remote store does, and which a client that does nothing else meanwhile would not be charged for. So bodies of large
objects are dropped by the kernel (MSG_TRUNC), unread; small ones (manifests, states) are kept and can be read. What
lies in a folder is sent from there, by the kernel too (sendfile).
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from trainyard.launch import priority

_KEPT = 1 << 20
_PIECE = 1 << 18
_NOTHING = bytearray(1 << 20)
_BODIES = "/-/bodies"
_HEADERS = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "ETag": '"x"'}


class Rate:
    """So many bytes a second, over all connections."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate, self._lock, self._free = bytes_per_second, threading.Lock(), time.monotonic()

    def take(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self._rate
            wait = self._free - time.monotonic()
        if wait > 0:
            time.sleep(wait)


@dataclass(frozen=True)
class Shape:
    """How far away the store is."""

    total: float = 1e12
    """Bytes a second over all connections."""
    per_connection: float | None = None
    """Bytes a second of each; over all, when None."""
    latency: float = 0.0
    """Seconds of each request."""
    aside: bool = False
    """Whether it takes only what is idle of the cores, because training has them: one elsewhere would take nothing."""
    folder: str = ""
    """Where buckets lie that can be read."""

    def file(self, path: str) -> Path | None:
        """The file of an object that lies in the folder."""
        file = Path(self.folder) / path.strip("/")
        return file if self.folder and file.is_file() else None

    def files(self) -> dict[str, int]:
        """Every such object with its size in bytes."""
        root = Path(self.folder)
        found = (file for file in root.rglob("*") if file.is_file()) if self.folder else ()
        return {f"/{file.relative_to(root)}": file.stat().st_size for file in found}


class Sink(BaseHTTPRequestHandler):
    """The requests that obstore, pyarrow, boto3, s5cmd and rclone make."""

    protocol_version = "HTTP/1.1"
    shape: Shape
    rate: Rate
    objects: dict[str, tuple[int, bytes]] = {}  # noqa: RUF012 - the server's, for all its handlers
    parts: dict[str, list[int]] = {}  # noqa: RUF012
    bodies: list[tuple[float, float]] = []  # noqa: RUF012
    """When each large body began and ended, in seconds of the monotonic clock."""

    def setup(self) -> None:
        """Of each connection."""
        super().setup()
        if self.shape.per_connection is not None:
            self.rate = Rate(self.shape.per_connection)

    def parse_request(self) -> bool:
        """Of each request: it has come a long way."""
        parsed = super().parse_request()
        time.sleep(self.shape.latency)
        return parsed

    def do_PUT(self) -> None:
        """An object, a part of one, or a bucket."""
        path, query = self._where()
        begin = time.monotonic()
        size, body = self._body()
        if size > _KEPT:
            self.bodies.append((begin, time.monotonic()))
        if "uploadId" in query:
            self.parts.setdefault(query["uploadId"][0], []).append(size)
        elif path.strip("/").count("/"):
            self.objects[path] = (size, body)
        self._answer(headers={"ETag": f'"{uuid.uuid4().hex}"'})

    def do_POST(self) -> None:
        """The begin or the end of an upload in parts, or deletions."""
        path, query = self._where()
        _, body = self._body()
        if "uploads" in query:
            identity = uuid.uuid4().hex
            self._answer(
                f"<InitiateMultipartUploadResult><UploadId>{identity}</UploadId></InitiateMultipartUploadResult>"
            )
        elif "uploadId" in query:
            self.objects[path] = (sum(self.parts.pop(query["uploadId"][0], [])), b"")
            self._answer('<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>')
        else:
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in keys:
                self.objects.pop(f"{path.rstrip('/')}/{unescape(key)}", None)
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self._answer(f"<DeleteResult>{gone}</DeleteResult>")

    def do_GET(self) -> None:
        """A list, a small object, or when large bodies came."""
        path, query = self._where()
        if path == _BODIES:
            self._answer(json.dumps(self.bodies))
        elif "list-type" in query:
            prefix = f"{path.rstrip('/')}/{query.get('prefix', [''])[0]}"
            there = {key: size for key, (size, _) in self.objects.items()} | self.shape.files()
            found = sorted((key, size) for key, size in there.items() if key.startswith(prefix))
            rows = "".join(
                f"<Contents><Key>{escape(key.split('/', 2)[2])}</Key><Size>{size}</Size>"
                '<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag></Contents>'
                for key, size in found
            )
            count = f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
            self._answer(f"<ListBucketResult>{count}{rows}</ListBucketResult>")
        elif path in self.objects:
            self._answer(self.objects[path][1].decode("latin-1"), encoding="latin-1")
        elif (file := self.shape.file(path)) is not None:
            self._send(file)
        else:
            self._answer("<Error><Code>NoSuchKey</Code></Error>", status=404)

    def do_HEAD(self) -> None:
        """Whether there is an object; buckets always are."""
        path, _ = self._where()
        file = self.shape.file(path)
        there = path in self.objects or file is not None or not path.strip("/").count("/")
        size = self.objects[path][0] if path in self.objects else file.stat().st_size if file is not None else 0
        self._answer(status=200 if there else 404, length=size)

    def do_DELETE(self) -> None:
        """Forget an object."""
        self.objects.pop(self._where()[0], None)
        self._answer(status=204)

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def handle(self) -> None:
        """All requests of a connection; a client may go in the midst of one."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _where(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> tuple[int, bytes]:
        size = int(self.headers.get("Content-Length", 0))
        decoded = int(self.headers.get("x-amz-decoded-content-length", size))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while (chunk := int(self.rfile.readline(), 16)) > 0:
                self._drop(chunk)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return decoded, b""
        if size > _KEPT:
            self._drop(size)
            return decoded, b""
        self.rate.take(size)
        return size, self.rfile.read(size)

    def _drop(self, size: int) -> None:
        left = size - len(self.rfile.peek(0)[:size])
        self.rate.take(size - left)
        self.rfile.read(size - left)
        while left > 0:
            came = self.connection.recv_into(_NOTHING, min(len(_NOTHING), left), socket.MSG_TRUNC)
            if not came:  # the client has gone
                raise ConnectionResetError
            # What comes meanwhile waits in the kernel: waking for each packet would cost as much as taking it.
            self.rate.take(came)
            left -= came

    def _send(self, file: Path) -> None:
        whole = file.stat().st_size
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1 if asked and asked[2] else whole, whole)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{whole}")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        with file.open("rb") as stream:
            while start < end:
                self.rate.take(min(_PIECE, end - start))
                start += os.sendfile(self.connection.fileno(), stream.fileno(), start, min(_PIECE, end - start))

    def _answer(self, text: str = "", status: int = 200, headers: dict[str, str] | None = None,
                length: int | None = None, encoding: str = "utf-8") -> None:  # fmt: skip
        data = text.encode(encoding)
        self.send_response(status)
        for name, value in {**_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@dataclass(frozen=True)
class Place:
    """Where it listens."""

    environment: dict[str, str]

    def bodies(self) -> list[tuple[float, float]]:
        """When each large body began and ended, in seconds of the monotonic clock."""
        with urllib.request.urlopen(self.environment["AWS_ENDPOINT_URL"] + _BODIES) as answer:
            return [(begin, end) for begin, end in json.load(answer)]


@contextlib.contextmanager
def shaped(shape: Shape) -> Iterator[Place]:
    """The sink, as a process of its own."""
    command = [sys.executable, "-m", "bench.sink", json.dumps(asdict(shape))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield Place(
                {
                    "AWS_ACCESS_KEY_ID": "sink", "AWS_SECRET_ACCESS_KEY": "sink", "AWS_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                }
            )  # fmt: skip
        finally:
            process.kill()


def main(shape: str) -> None:
    """Serve until killed; says the port first."""
    Sink.shape = Shape(**json.loads(shape))
    priority.only_idle() if Sink.shape.aside else priority.lower(os.getpid(), priority.LOWEST)
    Sink.rate = Rate(Sink.shape.total)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
