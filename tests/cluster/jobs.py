"""Jobs of the cluster's tests: waiting for them, and reading what they left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore

from tests.bed.kubectl import kubectl, read
from tests.bed.s3 import S3Server
from trainyard.spec.model import API_VERSION
from trainyard.storage import segments
from trainyard.storage.store import Store

Job = Callable[..., dict[str, Any]]
ARGUMENTS = {
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 4,
    "learning_rate": 1e-3,
}


def upload(s3: S3Server, source: Path, uri: str) -> None:
    """Copy a folder or a file to the server."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if file.is_file():
            name = f"{prefix}/{file.relative_to(source)}" if source.is_dir() else prefix
            obstore.put(s3.store(bucket), name, file.read_bytes())


def wait(namespace: str, condition: str, name: str = "job", seconds: int = 150) -> None:
    """Wait for a condition of a job."""
    where = ["--namespace", namespace, f"--timeout={seconds}s"]
    kubectl("wait", f"trainerjob/{name}", f"--for=condition={condition}", *where, timeout=seconds + 5)


def until(namespace: str, what: str, name: str = "job", seconds: int = 120) -> None:
    """Wait for a jsonpath of the job."""
    where = ["--namespace", namespace, f"--timeout={seconds}s"]
    kubectl("wait", f"trainerjob/{name}", f"--for=jsonpath={what}", *where, timeout=seconds + 5)


def status_of(namespace: str, name: str = "job") -> dict[str, Any]:
    """The job's status, empty before there is any."""
    found: dict[str, Any] = read(f"/apis/{API_VERSION}/namespaces/{namespace}/trainerjobs/{name}")
    status: dict[str, Any] = found.get("status", {})
    return status


def losses(s3: S3Server, run: str) -> dict[int, float]:
    """Loss of each logged step, from the metrics.jsonl of a run (bucket/path)."""
    bucket, _, path = run.partition("/")
    backend = s3.store(bucket)
    text = segments.read(Store(f"s3://{bucket}", "s3", backend, (backend, backend)), f"{path}/metrics.jsonl").decode()
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def worker_pod(namespace: str, name: str, spares: int) -> str:
    """A pod of a job of two workers that trains, and neither drives nor waits as a spare: rank 1 spoke there last."""
    said = {}
    for pod in (f"{name}-{index}" for index in range(1, 2 + spares)):
        log = kubectl("--namespace", namespace, "logs", pod, "--timestamps")
        said[pod] = max((line.split()[0] for line in log.splitlines() if "[rank 1]" in line), default="")
    return max(said, key=lambda pod: said[pod])
