"""What observe() looks at, beside the job itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from trainyard_operator.api import Object
from trainyard_operator.identity import index_of
from trainyard_operator.podstate import is_leaving, stage_of, trainer_of
from trainyard_operator.times import moment_of
from trainyard_operator.waits import silent_since

_KUBELET_STARTS = timedelta(seconds=30)
"""Until a node that is back has looked at the containers that it had."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What is there, beside the job itself."""

    pods: list[Object]
    """The job's own (identity.belongs), in no order."""
    lost_nodes: Mapping[str, datetime] = field(default_factory=dict)
    """Nodes that are not ready, and since when."""
    back_since: Mapping[str, datetime] = field(default_factory=dict)
    """Nodes that are ready, and since when: one that was lost is back since then."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What rank 0 reported last."""
    has_removed: bool = False
    """Whether a pod was deleted by force since the last look, and may be gone already."""
    refused: str | None = None
    """What the API server said when pods could not be made, for some seconds now."""
    image: str = ""
    """The image that the operator's settings name for training pods."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def by_index(self) -> dict[int, Object]:
        """The pods by their index."""
        indices = {index_of(pod): pod for pod in self.pods}
        return {index: pod for index, pod in indices.items() if index is not None}

    @property
    def first(self) -> Object | None:
        """The pod of index 0, which drives."""
        return self.by_index.get(0)

    @property
    def running(self) -> int:
        """How many trainers run."""
        return sum(stage_of(pod) == "Running" for pod in self.pods)

    @property
    def staying(self) -> int:
        """How many trainers run in pods that nobody has deleted."""
        return sum(stage_of(pod) == "Running" and not is_leaving(pod) for pod in self.pods)

    def lost_since(self, pod: Object) -> datetime | None:
        """Since when the node of a pod is lost; None when it is not."""
        return self.lost_nodes.get(pod["spec"].get("nodeName", ""))

    def died_with_node(self, pod: Object) -> bool:
        """Whether the trainer of a pod ended while its node was lost; the node is back since."""
        back = self.back_since.get(pod["spec"].get("nodeName", ""))
        started = pod.get("status", {}).get("startTime")
        if back is None or not started or back <= moment_of(started):
            return False
        # A kubelet that has started again may not know when a container ended.
        finished = trainer_of(pod).get("state", {}).get("terminated", {}).get("finishedAt")
        return not finished or moment_of(finished) <= back + _KUBELET_STARTS

    @cached_property
    def silent(self) -> float | None:
        """For how many seconds nobody has said why a pod does not begin; None when there is none such."""
        since = [silent_since(pod) for pod in self.pods]
        moments = [moment_of(moment) for moment in since if moment]
        return (self.now - min(moments)).total_seconds() if moments else None
