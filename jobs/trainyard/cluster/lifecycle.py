"""Suspending, resuming, waiting for and ending jobs."""

import json
import math
import time
from collections.abc import Callable

from trainyard.cluster.jobs import Object, condition, ended, now, refused, unseen
from trainyard.cluster.kubectl import JOB, Kubectl, TimedOutError
from trainyard.errors import ManifestError, TrainyardError

_UNHEARD_SECONDS = 15.0


def suspend(kubectl: Kubectl, name: str, suspended: bool) -> None:
    """Set spec.suspend: pods save a checkpoint and go, or come again.

    Raises NotFoundError, and TrainyardError for a job that has ended.
    """
    if state := ended(kubectl.job(name)):
        verb = "suspend" if suspended else "resume"
        raise TrainyardError(f"{name} has ended ({state}): there is nothing to {verb}")
    patch = json.dumps({"spec": {"suspend": suspended}})
    kubectl.run("patch", JOB, name, "--type=merge", f"--patch={patch}")


def stop(kubectl: Kubectl, name: str, tell: Callable[[str], None]) -> str | None:
    """Suspend a job, wait until its pods are gone, and delete it. Returns its newest checkpoint.

    `tell` hears that a checkpoint is saved, where pods may have one to save, and when nobody seems to act on it.
    """
    job = kubectl.job(name)
    if not condition(job, "Finished"):
        if not job["spec"].get("suspend"):
            tell("saving a checkpoint")
        suspend(kubectl, name, suspended=True)
        asked, told = time.monotonic(), False
        # What the status said before the operator has seen the change does not count.
        while not (_seen(job := kubectl.job(name)) and (condition(job, "Suspended") or condition(job, "Finished"))):
            if not told and not _seen(job) and time.monotonic() - asked > _UNHEARD_SECONDS:
                told = True
                tell("the operator has not seen it yet: trainyard doctor tells whether it runs. Ctrl-C leaves the job")
            kubectl.until_changed(name)
    checkpoint: str | None = job.get("status", {}).get("checkpoint")
    delete(kubectl, name)
    return checkpoint


def wait(
    kubectl: Kubectl, name: str, kind: str, seconds: float = math.inf, tell: Callable[[str], None] = lambda _: None
) -> Object:
    """The job, when a condition of it is true or it has failed.

    `tell` hears once that no operator looks at the job.

    Raises TimedOutError after so many seconds, ManifestError for a job that the operator does not accept, and
    TrainyardError when it has ended without the condition.
    """
    until = time.monotonic() + seconds
    told = False
    while True:
        job = kubectl.job(name)
        warning = unseen(job, now())
        if warning is not None and not told:
            tell(warning)
            told = True
        if message := refused(job):
            raise ManifestError(f"{name} is not accepted: {message}")
        if condition(job, kind) or condition(job, "Failed"):
            return job
        if state := ended(job):
            raise TrainyardError(f"{name} has ended ({state}): it will not be {kind}")
        left = until - time.monotonic()
        if left <= 0:
            raise TimedOutError(f"timed out waiting for {name} to be {kind}; trainyard status {name} says what it does")
        kubectl.until_changed(name, left)


def delete(kubectl: Kubectl, name: str) -> None:
    """Delete a job with its pods. What it has in storage stays."""
    kubectl.run("delete", JOB, name, "--wait=false")


def _seen(job: Object) -> bool:
    """Whether the operator has seen the manifest as it is now."""
    return bool(job.get("status", {}).get("observedGeneration") == job["metadata"]["generation"])
