"""From a job to the objects that run it: pure, and the same bytes for the same job."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from trainyard.spec.manifest import as_manifest
from trainyard.spec.model import API_VERSION, TrainerJob
from trainyard.spec.podtemplate import CONFIG_FOLDER, TOKEN_FOLDER, TRAINER
from trainyard_operator.api import Object
from trainyard_operator.gangs import Gang, GangKind, gang
from trainyard_operator.identity import GROUP, IMAGE_ANNOTATION, INDEX_LABEL, JOB_LABEL, SPEC_ANNOTATION, Owner
from trainyard_operator.overlay import overlaid

DASHBOARD_PORT = 8265
AUDIENCE = GROUP
_TOKEN_SECONDS = 3600
_OPERATORS_OWN = ("suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "pendingDeadlineSeconds")
"""Of a spec: what a change of needs no other pods."""
_MANIFEST, _CA, _RAY_TOKEN = "job.json", "ca.crt", "token"
"""Keys of a job's Secrets, and files below CONFIG_FOLDER. The image says where they are, to the agent and to Ray."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the operator was installed with."""

    image: str
    """Of the training pods, but of those of a job that runs: see images.py."""
    progress_url: str
    """Base of the progress server as pods reach it, https://…"""
    ca: str
    """Certificate authorities by which pods trust the progress server, PEM."""
    grace_seconds: int = 120
    """A pod that is asked to go saves a checkpoint first."""
    gang: GangKind = "None"
    """The gang scheduler or queue of the cluster."""


def objects(job: TrainerJob, owner: Owner, settings: Settings) -> list[Object]:
    """Everything but the pods and Ray's token, in the order in which it is applied."""
    made = [secret(job, owner, settings), _network_policy(owner)]
    if job.spec.workers.pods > 1:  # nobody looks for the head of a single pod
        made.append(_service(owner))
    group = gang(settings.gang, job, owner.child).group
    return [*made, {**group, "metadata": _meta(owner, owner.child)}] if group else made


def pod(job: TrainerJob, owner: Owner, settings: Settings, index: int, image: str | None = None) -> Object:
    """The pod of an index, the user's overlay on top; `image`: of the job's other pods, else that of the settings."""
    image = image or settings.image
    team = gang(settings.gang, job, owner.child)
    template: Object = {
        "metadata": {
            "labels": {**job.metadata.labels, **_labels(owner, index), **team.labels},
            "annotations": team.annotations,
        },
        "spec": {
            **_placement(job, owner, team),
            **_lifecycle(owner, settings, index),
            "containers": [_container(job, owner, settings, index, image)],
            "volumes": _volumes(owner),
        },
    }
    merged = overlaid(template, job.spec.workers.template)
    _keep_credentials(merged, job)
    # The overlay changes how a pod runs, never whose it is.
    meta: Object = merged.get("metadata", {})
    made_of = {SPEC_ANNOTATION: spec_digest(job), IMAGE_ANNOTATION: image}
    meta |= {
        "name": owner.pod(index),
        "namespace": owner.namespace,
        "ownerReferences": [owner.reference],
        "labels": {**meta.get("labels", {}), **_labels(owner, index)},
        "annotations": {**meta.get("annotations", {}), **made_of},
    }
    return {"apiVersion": "v1", "kind": "Pod", **merged, "metadata": meta}


def _placement(job: TrainerJob, owner: Owner, team: Gang) -> Object:
    """Where a pod may stand, and who says so."""
    placement: Object = {}
    scheduler = job.spec.scheduler_name or team.scheduler
    if scheduler:
        placement["schedulerName"] = scheduler
    if job.spec.priority_class_name:
        placement["priorityClassName"] = job.spec.priority_class_name
    if job.spec.workers.pods > 1:
        placement["topologySpreadConstraints"] = [_apart(owner)]
    return placement


def _lifecycle(owner: Owner, settings: Settings, index: int) -> Object:
    """How a pod is found, what it may do, and how it ends. The overlay may not change most of it (spec.podtemplate)."""
    return {
        "restartPolicy": "Never",
        "hostname": owner.pod(index),
        "subdomain": owner.child,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _volumes(owner: Owner) -> list[Object]:
    config = [{"secret": {"name": owner.child}}, {"secret": {"name": owner.ray_secret}}]
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "job", "projected": {"sources": config}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]


def _container(job: TrainerJob, owner: Owner, settings: Settings, index: int, image: str) -> Object:
    workers, storage = job.spec.workers, job.spec.storage
    # What is the same for every job stands in the image (jobs/Dockerfile): each field of a pod costs the API server at
    # every change of it.
    env: list[Object] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        *_plain({
            "TRAINYARD_INDEX": str(index),
            "TRAINYARD_HEAD": owner.head,
            "TRAINYARD_RUN_URI": run_uri(job, owner),
            "TRAINYARD_UID": owner.uid,
            "KUBEFLOW_TRAINER_SERVER_URL": progress_url(owner, settings),
            **_threads(job),
        }),
    ]  # fmt: skip
    quantities = {"cpu": workers.resources.cpu, "memory": workers.resources.memory}
    resources: Object = {"requests": {name: value for name, value in quantities.items() if value}}
    limits = {"memory": workers.resources.memory} if workers.resources.memory else {}
    resources["limits"] = {**limits, **({"nvidia.com/gpu": str(workers.gpus)} if workers.gpus else {})}
    return {
        "name": TRAINER,
        "image": image,
        "command": ["/opt/trainyard/bin/python", "-m", "trainyard.cli.main", "agent"],
        "env": env,
        "envFrom": [{"secretRef": {"name": storage.secret}}] if storage.secret else [],
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "job", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    }


def _keep_credentials(merged: Object, job: TrainerJob) -> None:
    """Put the storage's Secret back, where an overlay has replaced envFrom: a list without a merge key."""
    secret = job.spec.storage.secret
    trainer = next(each for each in merged["spec"]["containers"] if each["name"] == TRAINER)
    sources = trainer.get("envFrom") or []
    if secret and {"secretRef": {"name": secret}} not in sources:
        trainer["envFrom"] = [{"secretRef": {"name": secret}}, *sources]


def _apart(owner: Owner) -> Object:
    """The wish that a job's pods stand on nodes of their own."""
    return {
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {JOB_LABEL: owner.name}},
    }  # fmt: skip


def _threads(job: TrainerJob) -> dict[str, str]:
    """Threads of a training process: its share of the cores that the pod asked for, not all of the node's."""
    workers = job.spec.workers
    if workers.resources.cpu is None:
        return {}
    cpu = workers.resources.cpu
    cores = float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1)
    return {"OMP_NUM_THREADS": str(max(1, int(cores / workers.processes)))}


def run_uri(job: TrainerJob, owner: Owner) -> str:
    """The run's folder in storage: on a cluster the namespace is part of it."""
    return f"{job.spec.storage.uri.rstrip('/')}/{owner.namespace}/{owner.name}"


def progress_url(owner: Owner, settings: Settings) -> str:
    """Where the pods of a job post their progress."""
    return f"{settings.progress_url}/apis/{API_VERSION}/namespaces/{owner.namespace}/trainerjobs/{owner.name}/progress"


def spec_digest(job: TrainerJob) -> str:
    """What pods are made for: it changes with the spec, but for what only the operator reads."""
    spec = as_manifest(job)["spec"]
    kept = {name: value for name, value in spec.items() if name not in _OPERATORS_OWN}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _labels(owner: Owner, index: int | None = None) -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": "trainyard",
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/part-of": "trainyard",
        "app.kubernetes.io/managed-by": "trainyard-operator",
        JOB_LABEL: owner.name,
    }
    return labels | ({INDEX_LABEL: str(index)} if index is not None else {})


def _meta(owner: Owner, name: str) -> Object:
    return {
        "name": name, "namespace": owner.namespace, "labels": _labels(owner), "ownerReferences": [owner.reference],
    }  # fmt: skip


def secret(job: TrainerJob, owner: Owner, settings: Settings) -> Object:
    """The Secret with what an agent reads: the manifest and the certificate authorities.

    One object, and no ConfigMap beside it: what a job costs the API server goes by how many objects it has.
    """
    manifest: dict[str, Any] = as_manifest(job)
    # What changes while a job runs is no part of what its pods read.
    manifest["metadata"] = {"name": owner.name, "namespace": owner.namespace}
    manifest["spec"].pop("suspend", None)
    texts = {_MANIFEST: json.dumps(manifest, indent=1), _CA: settings.ca}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _meta(owner, owner.child), "data": _encoded(texts)}


def ray_secret(owner: Owner, token: str) -> Object:
    """The Secret with the token that lets a pod into the job's Ray cluster.

    It is created once and never written again: pods with different tokens cannot be in one cluster.
    """
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": _meta(owner, owner.ray_secret), "immutable": True,
        "data": _encoded({_RAY_TOKEN: token}),
    }  # fmt: skip


def _encoded(texts: dict[str, str]) -> dict[str, str]:
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}


def _service(owner: Owner) -> Object:
    # Pods find the head before anything in it is ready.
    spec = {"clusterIP": "None", "selector": {JOB_LABEL: owner.name}, "publishNotReadyAddresses": True}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(owner, owner.child), "spec": spec}


def _network_policy(owner: Owner) -> Object:
    own = {"matchLabels": {JOB_LABEL: owner.name}}
    spec = {"podSelector": own, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": own}]}]}
    meta = _meta(owner, owner.child)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def _plain(values: dict[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in values.items()]
