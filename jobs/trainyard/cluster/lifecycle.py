"""Suspending, resuming and ending jobs."""

import json

from trainyard.cluster.jobs import condition
from trainyard.cluster.kubectl import JOB, Kubectl


def suspend(kubectl: Kubectl, name: str, suspended: bool) -> None:
    """Set spec.suspend: pods save a checkpoint and go, or come again. Raises NotFoundError."""
    patch = json.dumps({"spec": {"suspend": suspended}})
    kubectl.run("patch", JOB, name, "--type=merge", f"--patch={patch}")


def stop(kubectl: Kubectl, name: str) -> str | None:
    """Suspend a job, wait until its pods are gone, and delete it. Returns its newest checkpoint."""
    if not condition(kubectl.job(name), "Finished"):
        suspend(kubectl, name, suspended=True)
        for _ in kubectl.lines("get", JOB, name, "--watch", "--output=name"):
            job = kubectl.job(name)
            if condition(job, "Suspended") or condition(job, "Finished"):
                break
    checkpoint: str | None = kubectl.job(name).get("status", {}).get("checkpoint")
    delete(kubectl, name)
    return checkpoint


def delete(kubectl: Kubectl, name: str) -> None:
    """Delete a job with its pods. What it has in storage stays."""
    kubectl.run("delete", JOB, name, "--wait=false")
