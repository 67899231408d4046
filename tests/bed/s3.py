"""A real S3 server: SeaweedFS, with credentials."""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.bed import daemons
from tests.bed.home import HOST, STATE

WEED = Path(sys.executable).parent / "weed"
PORT = 8333
"""Port of the cluster's own server, on the bridge."""
_PARTS = ("s3", "master", "volume", "filer")


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

    def store(self, bucket: str) -> S3Store:
        """A client for a bucket; SeaweedFS makes the bucket at the first write."""
        return S3Store(
            bucket,
            config={
                "endpoint": self.endpoint,
                "access_key_id": self.access_key,
                "secret_access_key": self.secret_key,
                "region": "us-east-1",
            },
            client_options={"allow_http": True, "timeout": "5 seconds"},
            retry_config={"max_retries": 0},
        )

    def ready(self) -> bool:
        """Whether a write succeeds: the server gives no other sign."""
        try:
            obstore.put(self.store("ready"), "probe", b"x")
        except (BaseError, OSError):
            return False
        return True


@contextmanager
def s3_server(folder: Path, ports: list[int] | None = None) -> Iterator[S3Server]:
    """Start a server on loopback that keeps its data in a folder; it is killed with the end of the block.

    With the folder and the `ports` (`server_ports()`) of one that was killed, it comes back.
    """
    ports = ports or server_ports()
    server, command = configured(folder, "127.0.0.1", ports)
    log = folder / "weed.log"
    with log.open("ab") as stream:
        # SeaweedFS takes the AWS variables that it finds for credentials of its administrator.
        environment = {**os.environ, **server.environment}
        process = subprocess.Popen(command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=environment)
    try:
        daemons.wait_ready("SeaweedFS", server.ready, lambda: process.poll() is None, log)
        yield server
    finally:
        process.kill()
        process.wait()
        for port in ports:  # it makes sockets by the names of its ports
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def up() -> S3Server:
    """Start the cluster's server on the bridge, unless it runs; its data goes with the cluster."""
    folder = STATE / "s3"
    folder.mkdir(parents=True, exist_ok=True)
    first = PORT + 1
    server, command = configured(folder, HOST, [PORT, *range(first, first + 2 * len(_PARTS) - 1)])
    daemons.start("s3", command)
    daemons.wait("s3", "S3 server", server.ready)
    obstore.put(server.store("runs"), "ready", b"")  # a bucket is made with its first object
    return server


def configured(folder: Path, host: str, ports: list[int]) -> tuple[S3Server, list[str]]:
    """A server with its credentials in a folder, and the command that starts it."""
    config = folder / "s3.json"
    if not config.exists():
        credentials = [{"accessKey": "test", "secretKey": secrets.token_hex(16)}]
        identity = {
            "name": "test",
            "credentials": credentials,
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
    credentials = json.loads(config.read_text())["identities"][0]["credentials"][0]
    names = [*_PARTS, *(f"{name}.grpc" for name in _PARTS)]
    flags = [f"-{_port_flag(name)}={port}" for name, port in zip(names, ports, strict=True)]
    command = [
        str(WEED), "-logtostderr", "server", "-s3", f"-s3.config={config}", f"-dir={folder}", f"-ip={host}", f"-ip.bind={host}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=200", *flags,
    ]  # fmt: skip
    return S3Server(f"http://{host}:{ports[0]}", credentials["accessKey"], credentials["secretKey"]), command


def _port_flag(name: str) -> str:
    part, _, kind = name.partition(".")
    return f"{part}.port.{kind}" if kind else f"{part}.port"


def server_ports() -> list[int]:
    """Free ports for a server."""
    return free_ports(2 * len(_PARTS))


def free_ports(count: int) -> list[int]:
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
