"""A real S3 server: SeaweedFS on loopback, with credentials."""

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

_DEADLINE = 60.0
WEED = Path(sys.executable).parent / "weed"


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start a server that keeps its data in a folder; it ends with the block."""
    access, secret = "test", secrets.token_hex(16)
    config = folder / "s3.json"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(8)
    names = [
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port",
        "s3.port.grpc",
    ]
    command = [
        str(WEED), "server", "-s3", f"-s3.config={config}", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=200",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]  # fmt: skip
    server = S3Server(f"http://127.0.0.1:{ports[6]}", access, secret)
    log = folder / "weed.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
    try:
        _wait_ready(server, process, log)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    store = S3Store(
        "ready",
        config={
            "endpoint": server.endpoint,
            "access_key_id": server.access_key,
            "secret_access_key": server.secret_key,
            "region": "us-east-1",
        },
        client_options={"allow_http": True, "timeout": "5 seconds"},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            obstore.put(store, "probe", b"x")
            return
        except BaseError:
            time.sleep(0.1)  # the server tells nobody when it is ready: a write that succeeds is the only sign
    raise RuntimeError(f"SeaweedFS did not come up:\n{log.read_text(errors='replace')[-3000:]}")


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. SeaweedFS wants them below 55536: it adds 10000 for some of its own."""
    held, ports = [], []
    while len(ports) < count:
        probe = socket.socket()
        held.append(probe)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        if port < 55536:
            ports.append(port)
    for probe in held:
        probe.close()
    return ports
