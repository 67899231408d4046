"""Why a cluster does not run jobs: looked at from the outside in, each finding with its fix."""

import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.cluster.jobs import Object, condition, now, unseen_seconds
from trainyard.cluster.kubectl import JOB, ClusterError, Kubectl, TimedOutError
from trainyard.cluster.lifecycle import delete, wait
from trainyard.cluster.upload import placed, upload
from trainyard.errors import ManifestError, NotFoundError, TrainyardError
from trainyard.spec.manifest import as_manifest, validate
from trainyard.spec.model import TrainerJob

_OLDEST = (1, 31)
_NEEDED = (
    ("create", "trainerjobs.trainyard.dev"),
    ("get", "trainerjobs.trainyard.dev"),
    ("patch", "trainerjobs.trainyard.dev"),
    ("delete", "trainerjobs.trainyard.dev"),
    ("get", "pods"),
    ("get", "pods/log"),
    ("list", "events"),
)
_PROBE = """import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
assert total.item() == int(os.environ["WORLD_SIZE"]), "the workers cannot reach each other"
dist.destroy_process_group()
print("the workers reach each other")
"""

_PROBE_SECONDS = 600


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    well: bool
    told: str


def examine(kubectl: Kubectl, job: TrainerJob | None, tell: Callable[[str], None]) -> Iterator[Finding]:
    """Look at the cluster, and with a job also at its image, its storage and its network, by running a small one.

    Ends after the first finding without which nothing further can be known.
    """
    for look in (_server, _definition):
        finding = look(kubectl)
        yield finding
        if not finding.well:
            return
    yield _operator(kubectl)
    refused = [f"{verb} {what}" for verb, what in _NEEDED if not _allowed(kubectl, verb, what)]
    yield Finding("permissions", not refused, _words(refused, kubectl.current_namespace()))
    if job is None:
        return
    if job.spec.storage.secret:
        finding = _secret(kubectl, job.spec.storage.secret)
        yield finding
        if not finding.well:
            return
    yield _probe(kubectl, job, tell)


def _server(kubectl: Kubectl) -> Finding:
    try:
        version = json.loads(kubectl.run("version", "--output=json"))["serverVersion"]
    except ClusterError as error:
        return Finding("API server", False, f"{error}. Check kubectl config current-context")
    found = (int(version["major"]), int("".join(c for c in version["minor"] if c.isdigit())))
    told = version["gitVersion"]
    return Finding(
        "API server", found >= _OLDEST, told if found >= _OLDEST else f"{told}: 1.31 is the oldest that works"
    )


def _definition(kubectl: Kubectl) -> Finding:
    try:
        kubectl.run("explain", JOB.partition(".")[0] + ".spec.workers.count")
    except TrainyardError as error:
        return Finding("TrainerJob", False, str(error))
    return Finding("TrainerJob", True, "the cluster knows it")


def _operator(kubectl: Kubectl) -> Finding:
    """Whether an operator watches the namespace, and is ready."""
    what, selector = "operator", "--selector=app.kubernetes.io/name=trainyard-operator"
    namespace = kubectl.current_namespace()
    try:
        deployments = kubectl.get("deployments", "--all-namespaces", selector)["items"]
    except ClusterError as error:
        return _unseen_jobs(kubectl, what, error)
    if not deployments:
        return Finding(what, False, "not found: helm install trainyard charts/trainyard --namespace trainyard-system …")
    watching = [each for each in deployments if namespace in _watched(each, namespace)]
    if not watching:
        places = ", ".join(f"{_place(each)} watches {', '.join(_watched(each, namespace))}" for each in deployments)
        fix = f"install one there (helm install … --namespace {namespace}), or one for all with rbac.clusterWide=true"
        return Finding(what, False, f"none watches the namespace {namespace}: the one in {places}. Fix: {fix}")
    ready = sum(each.get("status", {}).get("readyReplicas", 0) for each in watching)
    first = watching[0]
    if ready:
        return Finding(what, True, f"{ready} ready in {_place(first)}, for {namespace}")
    why = _why_not_ready(kubectl, first["metadata"])
    return Finding(what, False, f"none ready in {_place(first)}, for {namespace}: {why}")


def _unseen_jobs(kubectl: Kubectl, what: str, error: ClusterError) -> Finding:
    """Whether jobs of the namespace wait for an operator that this user may not look at."""
    ages = [unseen_seconds(job, now()) for job in kubectl.get(JOB)["items"]]
    longest = max((age for age in ages if age is not None), default=None)
    if longest is None:
        return Finding(what, True, f"not known: {error}")
    words = f"no operator has looked at a job for {longest} s"
    return Finding(what, False, f"{words}. Fix: ask the cluster's administrator to install one for this namespace")


def _watched(deployment: dict[str, Any], namespace: str) -> list[str]:
    """The namespaces that an operator watches; one that watches all watches `namespace`."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    variables = [each for container in containers for each in container.get("env", [])]
    named = next((each.get("value", "") for each in variables if each["name"] == "WATCH_NAMESPACE"), "")
    return [part.strip() for part in named.split(",") if part.strip()] or [namespace]


def _place(deployment: dict[str, Any]) -> str:
    return str(deployment["metadata"]["namespace"])


def _why_not_ready(kubectl: Kubectl, deployment: Object) -> str:
    """The newest warning of the operator's pods (an image, a Secret of the chart's values), and where to read more."""
    namespace, name = deployment["namespace"], deployment["name"]
    more = f"kubectl logs --namespace {namespace} deployment/{name}"
    try:
        selector = "--field-selector=type=Warning,involvedObject.kind=Pod"
        events = kubectl.get("events", selector, f"--namespace={namespace}")["items"]
    except TrainyardError:
        return more
    warnings = [event for event in events if event["involvedObject"]["name"].startswith(f"{name}-")]
    if not warnings:
        return more
    newest = max(warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"{newest['message'].strip()} ({more})"


def _allowed(kubectl: Kubectl, verb: str, what: str) -> bool:
    try:
        return kubectl.run("auth", "can-i", verb, what).strip().startswith("yes")
    except TrainyardError:
        return False


def _words(refused: list[str], namespace: str) -> str:
    if not refused:
        return f"may run jobs in {namespace}"
    return f"may not {', '.join(refused)} in {namespace}: bind the ClusterRole edit there"


def _secret(kubectl: Kubectl, name: str) -> Finding:
    try:
        kubectl.run("get", "secret", name, "--output=name")
    except NotFoundError:
        fix = f"kubectl create secret generic {name} --from-env-file=… (AWS_ACCESS_KEY_ID=…, AWS_SECRET_ACCESS_KEY=…)"
        return Finding("Secret", False, f"{name} is not in {kubectl.current_namespace()}: {fix}")
    except ClusterError as error:
        return Finding("Secret", True, f"not known: {error}")
    return Finding("Secret", True, f"{name} is there")


def _probe(kubectl: Kubectl, job: TrainerJob, tell: Callable[[str], None]) -> Finding:
    """Run a script that only lets the workers meet, on the job's image, storage and pods; it is deleted afterwards."""
    what, namespace = "a small job", kubectl.current_namespace()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe.py").write_text(_PROBE, encoding="utf-8")
        manifest = _manifest_of_probe(as_manifest(job), folder, namespace)
        made, problems = validate(manifest)
        assert made is not None, problems
        name = made.name
        manifest = placed(made, namespace)
        upload(made, namespace, tell)
    tell(f"running {name}: image, storage, Ray and the network between {made.spec.workers.count} workers")
    there = Kubectl(namespace, kubectl.context)
    there.apply(manifest)
    try:
        failed = condition(wait(there, name, "Finished", _PROBE_SECONDS), "Failed")
    except TimedOutError:
        status = there.job(name).get("status", {})
        told = f"not done after {_PROBE_SECONDS} s: {status.get('reason')}: {status.get('message')}"
        return Finding(what, False, told)
    except ManifestError as error:
        return Finding(what, False, str(error))
    else:
        told = failed["message"] if failed else "its workers met, and storage took its run"
        return Finding(what, failed is None, told)
    finally:
        delete(there, name)


def _manifest_of_probe(manifest: dict[str, Any], code: str, namespace: str) -> dict[str, Any]:
    spec = manifest["spec"]
    kept = ("workers", "storage", "queue", "schedulerName", "priorityClassName")
    return {
        **manifest,
        "metadata": {"name": f"doctor-{secrets.token_hex(3)}", "namespace": namespace},
        "spec": {
            **{name: spec[name] for name in kept if name in spec},
            "code": code, "script": {"path": "probe.py"}, "restart": {"maxRestarts": 0},
            "pendingDeadlineSeconds": _PROBE_SECONDS // 2, "ttlSecondsAfterFinished": _PROBE_SECONDS,
        },
    }  # fmt: skip
