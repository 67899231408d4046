"""Why a pod has ended, from its state and its agent's termination message: pure."""

from dataclasses import dataclass

from trainyard.errors import ExitCode
from trainyard.protocol.ending import Ending
from trainyard.spec.model import TrainerJob
from trainyard.spec.podtemplate import TRAINER
from trainyard_operator import reasons
from trainyard_operator.api import Object
from trainyard_operator.podstate import is_leaving, stage_of, trainer_of
from trainyard_operator.world import World

_KILLED = 137
"""128 and SIGKILL."""
_MOST_WORDS = 1000
"""Characters of a process's last line that a message holds."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A pod that ended without the job being complete."""

    pod: Object
    reason: str
    message: str
    """What happened, with the pod's name in it; a final one is the job's, and names no pod."""
    counts: bool
    """Whether it is a restart of the job's budget."""
    final: bool = False
    """Whether another try would end in the same way."""
    kind: str | None = None
    """What the end is like, to compare it with the one before; None where the driver does that (launch/retry)."""


def failures_of(job: TrainerJob, world: World) -> list[Failure]:
    """The failures of the pods that have failed and that nobody has deleted yet."""
    failures = []
    for pod in world.pods:
        if stage_of(pod) == "Failed" and not is_leaving(pod):
            failures.append(_failure_of(job, world, pod))
    return failures


def _failure_of(job: TrainerJob, world: World, pod: Object) -> Failure:
    """Why a pod has failed."""
    name = pod["metadata"]["name"]
    end = end_of(pod)
    code, cause = end.get("exitCode"), end.get("reason", "")
    if code == _KILLED and "outcome" not in end:  # its last line is not why
        end["message"] = "killed (SIGKILL) without a word"
    where = f" ({end['where']})" if end.get("where") else ""
    words = f"{end.get('message') or cause or pod['status'].get('message') or 'ended without a word'}{where}"
    if code == ExitCode.JOB_FAILED:
        return Failure(pod=pod, reason=reasons.JOB_FAILED, message=words, counts=False, final=True)
    if code == ExitCode.STOPPED or _is_disrupted(pod):
        return Failure(pod=pod, reason=reasons.EVICTED, message=f"{name} was asked to go", counts=False)
    if "outcome" not in end and world.died_with_node(pod):
        message = f"{name}: node {pod['spec']['nodeName']} was lost, and is back"
        return Failure(pod=pod, reason=reasons.NODE_LOST, message=message, counts=False)
    if cause == "OOMKilled":
        message = f"{name} was killed: out of memory {_memory_limit(job, pod)}"
        return Failure(pod=pod, reason=reasons.OOM, message=message, counts=True, kind=reasons.OOM)
    if code == ExitCode.RETRY:
        return Failure(pod=pod, reason=reasons.POD_LOST, message=f"{name}: {words}", counts=True)
    how = f"exit code {code}: {words}"
    # A process that is killed from outside may have had bad luck; one that ends by itself ends so again.
    kind = None if code in (None, _KILLED) else how
    return Failure(pod=pod, reason=reasons.POD_LOST, message=f"{name}: {how}", counts=True, kind=kind)


def end_of(pod: Object) -> Object:
    """How the pod's trainer ended: exit code and reason, with the agent's own words where it left any."""
    ended = trainer_of(pod).get("state", {}).get("terminated")
    if not ended:
        return _end_before(pod)
    text = ended.get("message") or ""
    end = {"exitCode": ended.get("exitCode"), "reason": ended.get("reason", "")}
    try:
        ending = Ending.decode(text)
    except (ValueError, TypeError):  # it died without a word of its own: this is the last line of its log
        return {**end, "message": text.strip().rpartition("\n")[2][:_MOST_WORDS]}
    return {**end, "outcome": ending.outcome, "message": ending.message, "where": ending.where}


def _end_before(pod: Object) -> Object:
    """How an init container of the job's overlay ended a pod whose trainer never began."""
    for container in pod["status"].get("initContainerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended and ended.get("exitCode"):
            name = container["name"]
            words = (ended.get("message") or ended.get("reason") or "").strip()[:_MOST_WORDS]
            look = f"kubectl logs {pod['metadata']['name']} -c {name}"
            return {"exitCode": ended["exitCode"], "message": f"init container {name} failed: {words} ({look})"}
    return {}


def _is_disrupted(pod: Object) -> bool:
    """Whether Kubernetes ended the pod for a reason of its own: a drain, a preemption, a node that is gone."""
    return any(condition["type"] == "DisruptionTarget" for condition in pod["status"].get("conditions", []))


def _memory_limit(job: TrainerJob, pod: Object) -> str:
    """Which memory limit a pod had, where that came from, and what to change."""
    field = "spec.workers.resources.memory"
    limit = _limit_of(pod["spec"]["containers"])
    if limit is None:
        return f"(no limit: the node's memory was full); set {field}"
    if job.spec.workers.resources.memory is not None:
        return f"(limit {limit}); raise {field}"
    overlay = job.spec.workers.template.get("spec") or {}
    if _limit_of(overlay.get("containers") or []) is not None:
        return f"(limit {limit}); raise it in spec.workers.template"
    return f"(limit {limit}, the namespace's default); set {field}"


def _limit_of(containers: list[Object]) -> str | None:
    """The memory limit of the trainer among containers; None without one."""
    for container in containers:
        if container.get("name") == TRAINER:
            limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
            return None if limit is None else str(limit)
    return None
