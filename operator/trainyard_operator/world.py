"""What observe() looks at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from trainyard_operator.api import Object
from trainyard_operator.podstate import silent_since
from trainyard_operator.render import INDEX_LABEL
from trainyard_operator.times import moment_of


@dataclass(frozen=True)
class World:
    """What is there, beside the job itself."""

    pods: list[Object]
    lost_nodes: Mapping[str, datetime]
    """Nodes that are not ready, and since when."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What rank 0 reported last."""
    refused: str | None = None
    """What the API server said when pods could not be made, for some seconds now."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def first(self) -> Object | None:
        """The pod of index 0, which drives."""
        return next((pod for pod in self.pods if pod["metadata"]["labels"][INDEX_LABEL] == "0"), None)

    def lost_since(self, pod: Object) -> datetime | None:
        """Since when the node of a pod is lost; None when it is not."""
        return self.lost_nodes.get(pod["spec"].get("nodeName", ""))

    @cached_property
    def silent(self) -> float | None:
        """For how many seconds nobody has said why a pod does not begin; None when there is none such."""
        since = [moment for pod in self.pods if (moment := silent_since(pod))]
        return (self.now - min(map(moment_of, since))).total_seconds() if since else None
