"""What gang schedulers and queues expect of a job's pods, so that all of them are placed or none.

- Kueue reads labels and the group's size on each pod (kueue.sigs.k8s.io, Run Plain Pods).
- Volcano reads a PodGroup, which pods name in an annotation (volcano.sh, PodGroup).
- YuniKorn reads labels, and the group's size and resources in annotations (yunikorn.apache.org, Gang Scheduling).
- KAI reads a PodGroup, which pods name; its own grouper must keep away (KAI Scheduler, external PodGroups).
- Coscheduling reads a PodGroup, which pods name in a label (scheduler-plugins, Coscheduling).
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trainyard.spec.model import TrainerJob
from trainyard_operator.api import Object

GangKind = Literal["None", "Kueue", "Volcano", "YuniKorn", "KAI", "Coscheduling"]
KINDS: tuple[str, ...] = get_args(GangKind)


@dataclass(frozen=True)
class Gang:
    """What a gang scheduler adds to a job: to each pod, and beside them."""

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    scheduler: str | None = None
    group: Object | None = None
    """The PodGroup, without its metadata; None where the scheduler makes its own."""


def gang(kind: GangKind, job: TrainerJob, name: str) -> Gang:
    """The gang of a job. Without a scheduler of this kind it is empty; Kueue leaves jobs without a queue alone."""
    spec = job.spec
    count, queue, priority = spec.workers.count, spec.queue, spec.priority_class_name
    if kind == "Kueue" and queue:
        labels = {"kueue.x-k8s.io/queue-name": queue, "kueue.x-k8s.io/pod-group-name": name}
        return Gang(labels, {"kueue.x-k8s.io/pod-group-total-count": str(spec.workers.pods)})
    if kind == "Volcano":
        annotations = {"scheduling.k8s.io/group-name": name}
        return Gang({}, annotations, "volcano", _group("scheduling.volcano.sh/v1beta1", job, queue, priority))
    if kind == "YuniKorn":
        labels = {"yunikorn.apache.org/app-id": name, **_given(**{"yunikorn.apache.org/queue": queue})}
        tasks = [{"name": "workers", "minMember": count, "minResource": _resources(job)}]
        annotations = {
            "yunikorn.apache.org/task-group-name": "workers",
            "yunikorn.apache.org/task-groups": json.dumps(tasks),
        }
        return Gang(labels, annotations, "yunikorn")
    if kind == "KAI":
        annotations = {"pod-group-name": name, "kai.scheduler/skip-podgrouper": "true"}
        group = _group("scheduling.run.ai/v2alpha2", job, queue, priority)
        return Gang(_given(**{"kai.scheduler/queue": queue}), annotations, "kai-scheduler", group)
    if kind == "Coscheduling":
        return Gang({"scheduling.x-k8s.io/pod-group": name}, {}, None, _group("scheduling.x-k8s.io/v1alpha1", job))
    return Gang()


def _group(version: str, job: TrainerJob, queue: str | None = None, priority: str | None = None) -> Object:
    given = _given(queue=queue, priorityClassName=priority)
    return {"apiVersion": version, "kind": "PodGroup", "spec": {"minMember": job.spec.workers.count, **given}}


def _resources(job: TrainerJob) -> dict[str, Any]:
    workers = job.spec.workers
    wanted = {"cpu": workers.resources.cpu, "memory": workers.resources.memory}
    return _given(**wanted) | ({"nvidia.com/gpu": str(workers.gpus)} if workers.gpus else {})


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
