"""One pass over one job: render, observe, write the difference. A pass over an unchanged job writes nothing."""

import hashlib
import json
import logging
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime

from trainyard.plan.checks import check
from trainyard.plan.sources import named
from trainyard.spec.manifest import validate
from trainyard.spec.model import API_VERSION, KIND, Spec, TrainerJob
from trainyard.spec.rules import LOCAL, NO_STORAGE
from trainyard.spec.yamltext import Problem
from trainyard_operator import render
from trainyard_operator.api import FIELD_MANAGER, Api, ApiError, Object
from trainyard_operator.events import Event, events
from trainyard_operator.gangs import GangKind
from trainyard_operator.identity import SPEC_ANNOTATION, Owner, belongs, owner_uid
from trainyard_operator.images import group_image
from trainyard_operator.informer import Informer, key_of
from trainyard_operator.look import Seen, soonest
from trainyard_operator.observe import invalid, observe
from trainyard_operator.podstate import is_leaving, stage_of
from trainyard_operator.progress import Progress
from trainyard_operator.times import moment_of, text_of
from trainyard_operator.world import World

log = logging.getLogger(__name__)

JOBS = f"/apis/{API_VERSION}/trainerjobs"
_STATUS_SECONDS = 5.0
"""Numbers and words alone are written not more often than this; states, reasons and conditions at once."""
_REFUSED_SECONDS = 2.0
_TOKEN_BYTES = 32
"""Bytes of randomness in the token of a job's Ray cluster."""
_UNHURRIED = (
    "step", "steps", "progressPercentage", "estimatedRemainingSeconds", "columns", "loss", "phase", "metrics",
    "goodputPercentage", "message", "dashboard",
)  # fmt: skip
PATHS = {
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Pod": "/api/v1/namespaces/{}/pods",
    "PodGroup": "/apis/{version}/namespaces/{}/podgroups",
}


class Reconciler:
    """Brings jobs to where their manifests want them."""

    def __init__(
        self, api: Api, settings: render.Settings, jobs: Informer, pods: Informer, nodes: Informer, progress: Progress
    ) -> None:
        self._api, self._settings = api, settings
        self._jobs, self._pods, self._nodes, self._progress = jobs, pods, nodes, progress
        self._applied: dict[str, dict[tuple[str, str], bytes]] = {}
        """By job: the digest of each object, by kind and name, as it was applied last."""
        self._written: dict[str, tuple[float, Object]] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        """By job: since when its pods cannot be made, and why."""
        self._removed: set[str] = set()
        """Jobs of which a pod was deleted by force since the last look."""
        self._trusted: dict[str, str] = {}
        """By job: the certificate authorities that its Secret was written with last."""

    def trust(self, authorities: str) -> None:
        """Write these certificate authorities (PEM) into the Secrets of jobs from now on."""
        self._settings = replace(self._settings, ca=authorities)

    def note_removed(self, key: str, pod: Object) -> None:
        """Note that a job's own pod was deleted by force: the next look may find nothing of it."""
        found = self._jobs.objects.get(key)
        if found is not None and belongs(pod, Owner.of(found)):
            self._removed.add(key)

    def reconcile(self, key: str) -> float | None:
        """Look at a job once. Returns seconds until it must be looked at again, if at all. Raises ApiError."""
        found = self._jobs.objects.get(key)
        if found is None or "deletionTimestamp" in found["metadata"]:
            self._forget(key)
            return None
        meta, before = found["metadata"], self._known_status(key, found)
        owner = Owner.of(found)
        pods = [pod for pod in self._pods.indexed(owner.key) if belongs(pod, owner)]
        job, problems = accepted(found, self._settings.gang)
        if job is None:
            lines = "; ".join(f"{'.'.join(map(str, problem.path))}: {problem.message}" for problem in problems)
            world = World(pods=pods)
            self._write_status(key, found, invalid(meta["generation"], before, lines, world))
            return None
        has_removed = key in self._removed
        if has_removed:  # one that is noted from here on is of the next look
            self._removed.discard(key)
        world = World(
            pods=pods, lost_nodes=self._nodes_since(pods, ready=False),
            back_since=self._nodes_since(pods, ready=True), progress=self._progress.get(key, owner.uid),
            has_removed=has_removed, refused=self._refusal(key), image=self._settings.image,
        )  # fmt: skip
        seen = observe(job, owner, meta["generation"], before, world)
        # The status first: a failure that is counted and then forgotten in a crash would be counted twice.
        left = self._write_status(key, found, seen.status)
        try:
            blocked = self._act(job, owner, seen, world)
        except ApiError as error:
            self._note_refusal(key, str(error) if 400 <= error.status < 500 else None)
            raise
        self._note_refusal(key, blocked)
        if seen.expired:
            self._api.delete(
                f"/apis/{API_VERSION}/namespaces/{owner.namespace}/trainerjobs/{owner.name}", uid=owner.uid
            )
        soon = _REFUSED_SECONDS if blocked else None
        return soonest(left, seen.again, soon)

    def _act(self, job: TrainerJob, owner: Owner, seen: Seen, world: World) -> str | None:
        """Do what is to be done; what is in the way of a pod, if anything is."""
        blocked = None
        for gone in seen.delete:
            self._api.delete(f"{PATHS['Pod'].format(owner.namespace)}/{gone.name}", gone.grace_seconds, gone.uid)
        if seen.create or seen.ensure:
            blocked = self._prepare(job, owner, world.pods)
            if blocked:
                return blocked
        else:
            self._renew_trust(job, owner, world.pods)
        for index in seen.create:
            path = PATHS["Pod"].format(owner.namespace)
            if not self._api.create(path, render.pod(job, owner, self._settings, index, group_image(world))):
                blocked = self._in_the_way(path, owner, owner.pod(index)) or blocked
        return blocked

    def _prepare(self, job: TrainerJob, owner: Owner, pods: list[Object]) -> str | None:
        """Make what pods need, where it is not there. Returns why no pod may be made yet, if that is so."""
        key = f"{owner.namespace}/{owner.name}"
        settings = self._settings
        for obj in render.objects(job, owner, settings):
            self._ensure(key, obj)
        self._trusted[key] = settings.ca
        token = render.ray_secret(owner, secrets.token_hex(_TOKEN_BYTES))
        if not self._api.create(PATHS["Secret"].format(owner.namespace), token):
            return None
        # Somebody has deleted the token of a running cluster: a new pod could not join the pods that have the old one.
        running = [pod for pod in pods if stage_of(pod) == "Running" and not is_leaving(pod)]
        for pod in running:
            meta = pod["metadata"]
            self._api.delete(f"{PATHS['Pod'].format(owner.namespace)}/{meta['name']}", uid=meta["uid"])
        return f"the Secret {owner.ray_secret} was deleted: all pods start again, with a new one" if running else None

    def _renew_trust(self, job: TrainerJob, owner: Owner, pods: list[Object]) -> None:
        """Write the job's Secret again when pods that run must trust other certificate authorities."""
        key = f"{owner.namespace}/{owner.name}"
        settings = self._settings
        running = [pod for pod in pods if stage_of(pod) == "Running"]
        if not running or self._trusted.get(key) == settings.ca:
            return
        digest = render.spec_digest(job)
        if any(pod["metadata"].get("annotations", {}).get(SPEC_ANNOTATION) != digest for pod in running):
            return  # they go, and until then read the manifest that they were made for
        secret = render.secret(job, owner, settings)
        self._api.apply(f"{PATHS['Secret'].format(owner.namespace)}/{owner.child}", secret)
        self._trusted[key] = settings.ca

    def _in_the_way(self, path: str, owner: Owner, name: str) -> str | None:
        """What has a pod's name already; None when it is the job's own, which the informer does not know yet."""
        # Asked for as a list: the operator may not get pods. It is seldom.
        found = self._api.request("GET", path, query={"fieldSelector": f"metadata.name={name}"})["items"]
        if found and belongs(found[0], owner):
            return None
        if not found or is_leaving(found[0]):
            return f"the pod {name} of another job is still saving and going"
        if owner_uid(found[0]) == owner.uid:
            return f"the pod {name} has lost the labels that the operator gave it: kubectl delete pod {name}"
        return f"a pod {name} is there that is not this job's: kubectl delete pod {name}"

    def _note_refusal(self, key: str, words: str | None) -> None:
        """Keep why pods cannot be made now, and since when that is so."""
        if words is None:
            self._refused.pop(key, None)
            return
        since, _ = self._refused.get(key, (time.monotonic(), ""))
        self._refused[key] = since, words

    def _ensure(self, key: str, obj: Object) -> None:
        meta, applied = obj["metadata"], self._applied.setdefault(key, {})
        digest = hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).digest()
        path = PATHS[obj["kind"]].format(meta["namespace"], version=obj["apiVersion"])
        if obj["kind"] == "PodGroup":
            # What a create set, a later apply cannot remove, and a PodGroup may lose its queue. An apply also makes it
            # again when somebody has deleted it.
            self._api.apply(f"{path}/{meta['name']}", obj)
            return
        # To create is the cheaper request, and most are for new jobs; it also makes again what somebody has deleted.
        # The name is the job's own: what has it is ours.
        is_new = self._api.create(path, obj)
        if not is_new and applied.get((obj["kind"], meta["name"])) != digest:
            self._api.apply(f"{path}/{meta['name']}", obj)
        applied[obj["kind"], meta["name"]] = digest

    def _refusal(self, key: str) -> str | None:
        """Why pods cannot be made, when it has been so for a while: an informer that lags behind is no news."""
        since, words = self._refused.get(key, (0.0, ""))
        return words if words and time.monotonic() - since > _REFUSED_SECONDS else None

    def wrote(self, found: Object) -> bool:
        """Whether a job's status is the one that we wrote last."""
        written = self._written.get(key_of(found))
        status = {"uid": found["metadata"]["uid"], "status": found.get("status")}
        return written is not None and written[1] == status

    def _known_status(self, key: str, found: Object) -> Object:
        """The status as we wrote it last: the informer's copy may be older."""
        uid = found["metadata"]["uid"]
        status: Object = found.get("status", {})
        written = self._written.get(key)
        if written and written[1]["uid"] == uid:
            status = written[1]["status"]
        return dict(status)

    def _write_status(self, key: str, found: Object, status: Object) -> float | None:
        """Write a status that has changed. Returns seconds until it may be written, when only numbers have changed."""
        before, meta = self._known_status(key, found), found["metadata"]
        if status == before:
            return None
        now = time.monotonic()
        last = self._written.get(key, (0.0, {}))[0]
        if _urgent(status) == _urgent(before) and now - last < _STATUS_SECONDS:
            return last + _STATUS_SECONDS - now
        body = {
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}, "status": status,
        }  # fmt: skip
        namespace, name = meta["namespace"], meta["name"]
        self._api.apply(f"/apis/{API_VERSION}/namespaces/{namespace}/trainerjobs/{name}/status", body)
        self._written[key] = (now, {"uid": meta["uid"], "status": status})
        self._tell(found, before, status)
        return None

    def _tell(self, found: Object, before: Object, status: Object) -> None:
        """Write the events of a change of status to the API server and to the log."""
        meta = found["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/events"
        for event in events(before, status):
            log.info("%s: %s %s", key_of(found), event.reason, event.message)
            try:
                self._api.request("POST", path, _event(meta, event))
            except ApiError as error:
                log.warning("%s: no event: %s", key_of(found), error)

    def _nodes_since(self, pods: list[Object], ready: bool) -> dict[str, datetime]:
        """Since when the nodes of pods are ready, or (False) lost; those that are not so are left out."""
        since = {}
        for name in {pod["spec"].get("nodeName", "") for pod in pods}:
            for condition in self._nodes.objects.get(name, {}).get("status", {}).get("conditions", []):
                if condition["type"] == "Ready" and (condition["status"] == "True") == ready:
                    since[name] = moment_of(condition["lastTransitionTime"])
        return since

    def _forget(self, key: str) -> None:
        self._written.pop(key, None)
        self._refused.pop(key, None)
        self._removed.discard(key)
        self._applied.pop(key, None)
        self._trusted.pop(key, None)
        self._progress.forget(key)


def _event(meta: Object, event: Event) -> Object:
    """An event of a job, as the API server takes it."""
    now = text_of(datetime.now(UTC))
    involved = {name: meta[name] for name in ("name", "namespace", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {"apiVersion": API_VERSION, "kind": KIND, **involved},
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1000] or event.reason,
        "source": {"component": FIELD_MANAGER},
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
    }


def accepted(found: Object, gang: GangKind) -> tuple[TrainerJob | None, list[Problem]]:
    """The job of an object of the API server, or what is wrong with it on a cluster with such a queue."""
    keep = ("name", "namespace", "labels", "annotations")
    meta = {name: value for name, value in found["metadata"].items() if name in keep}
    meta.pop("annotations", None)
    job, problems = validate({**{k: found[k] for k in ("apiVersion", "kind", "spec")}, "metadata": meta})
    if job is not None:
        problems = [*check(job.spec), *_local(job.spec)]
        if job.spec.queue and gang == "None":  # a job that passes its queue by is worse than one that waits
            fix = "The operator knows none: install it with --set scheduling.gang=Kueue (or another), or remove queue"
            problems.append(Problem(("spec", "queue"), f"{job.spec.queue}: no such queue. {fix}"))
    return (job, []) if job is not None and not problems else (None, problems)


def _local(spec: Spec) -> list[Problem]:
    """Paths that no pod can see. An absolute one may be in the image or on a volume."""
    uri = spec.storage.uri
    sources = named(spec).items()
    problems = [Problem(path, f"{source}: {LOCAL}") for path, source in sources if _on_machine(path, source)]
    if "://" not in uri and not uri.startswith("/"):
        problems.append(Problem(("spec", "storage", "uri"), f"{uri}: {NO_STORAGE}"))
    return problems


def _on_machine(path: tuple[str, ...], source: str) -> bool:
    """Whether a source is a path of the user's machine. Code has no name on a hub: without a URI it is a path."""
    if path[-1] == "code":
        return "://" not in source and not source.startswith("/")
    return source[0] in ".~"


def _urgent(status: Object) -> Object:
    conditions = [{**each, "message": ""} for each in status.get("conditions", [])]
    return {key: value for key, value in status.items() if key not in _UNHURRIED} | {"conditions": conditions}
