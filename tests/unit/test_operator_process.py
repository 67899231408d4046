"""The operator's process while it cannot start: it looks alive, not ready, and ends when it is asked to."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """An operator whose API server is away, and its port of health and metrics."""
    port, cluster = free_port(), {"server": f"https://127.0.0.1:{free_port()}"}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "a", "users": [{"name": "a", "user": {"token": "x"}}],
        "clusters": [{"name": "a", "cluster": cluster}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    env = {
        **os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "TRAINYARD_IMAGE": "trainer:1",
        "TRAINYARD_PROGRESS_URL": "https://operator:8443", "TRAINYARD_METRICS_PORT": str(port),
    }  # fmt: skip
    command = [sys.executable, "-m", "trainyard_operator.main"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    yield process, port
    process.kill()
    process.communicate()


def status_of(port: int, path: str) -> int | None:
    """The HTTP status of a path; None while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()


def test_operator_without_its_api_server_looks_alive(waiting: tuple[subprocess.Popen[str], int]) -> None:
    process, port = waiting
    deadline = time.monotonic() + 60
    while status_of(port, "/healthz") is None:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)  # a process that starts makes no event
    assert status_of(port, "/healthz") == 200
    assert status_of(port, "/readyz") == 503
    assert status_of(port, "/metrics") == 200
    assert process.stderr is not None
    while "no certificates yet" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
