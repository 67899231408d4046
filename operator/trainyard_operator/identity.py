"""Whose pod a pod is: by its namespace, name, labels and controller together, never by one of them alone.

Who may edit one namespace can make pods there with any label and any ownerReference, also with the uid of a job in
another namespace. So a pod belongs to a job only if everything that the operator gives its pods is as it gave it.
A label that somebody else wrote may hold anything: it is parsed, never trusted.
"""

import re
from dataclasses import dataclass

from trainyard.spec.model import API_VERSION, KIND
from trainyard_operator.api import Object

GROUP = API_VERSION.partition("/")[0]
JOB_LABEL = f"{GROUP}/job-name"
INDEX_LABEL = f"{GROUP}/index"
SPEC_ANNOTATION = f"{GROUP}/spec"
"""Of a pod: the digest of the spec that it was made for."""
IMAGE_ANNOTATION = f"{GROUP}/image"
"""Of a pod: the operator's image when the pod was made."""
_INDEX = re.compile(r"0|[1-9][0-9]{0,3}")
"""An index as the operator writes it; a job has 1,088 pods at most (count and spares)."""


@dataclass(frozen=True)
class Owner:
    """The job as an owner: its namespace, name and uid."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, job: Object) -> "Owner":
        """The owner that a TrainerJob of the API server is."""
        meta = job["metadata"]
        return cls(meta["namespace"], meta["name"], meta["uid"])

    @property
    def key(self) -> str:
        """What all its objects share, as group_of() reads it from one of them."""
        return f"{self.namespace}/{self.uid}"

    @property
    def reference(self) -> Object:
        """The ownerReference of its objects: deleting the job deletes them."""
        return {
            "apiVersion": API_VERSION, "kind": KIND, "name": self.name, "uid": self.uid, "controller": True,
            "blockOwnerDeletion": True,
        }  # fmt: skip

    @property
    def child(self) -> str:
        """Name of its Secret, Service, NetworkPolicy and PodGroup: with its uid, so that nobody else's has it."""
        return f"{self.name}-{self.uid[:8]}"

    @property
    def ray_secret(self) -> str:
        """Name of the Secret with the token of its Ray cluster."""
        return f"{self.child}-ray"

    def pod(self, index: int) -> str:
        """Name of the pod of an index."""
        return f"{self.name}-{index}"

    @property
    def head(self) -> str:
        """Host name of the first pod."""
        return f"{self.pod(0)}.{self.child}.{self.namespace}.svc"


def labels_of(obj: Object) -> dict[str, str]:
    """The labels of an object; empty when it has none."""
    return obj["metadata"].get("labels") or {}


def owner_uid(obj: Object) -> str | None:
    """The uid of the controller that an object names; None when it names none."""
    references = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in references if owner.get("controller")), None)


def group_of(obj: Object) -> str | None:
    """`namespace/uid` of the controller that an object names, as Owner.key; None when it names none."""
    uid = owner_uid(obj)
    return None if uid is None else f"{obj['metadata'].get('namespace', '')}/{uid}"


def index_of(pod: Object) -> int | None:
    """The index that a pod's label says; None when it says none that the operator would write."""
    text = labels_of(pod).get(INDEX_LABEL, "")
    return int(text) if _INDEX.fullmatch(text) else None


def belongs(pod: Object, owner: Owner) -> bool:
    """Whether the operator made a pod for a job."""
    index = index_of(pod)
    return (
        index is not None
        and group_of(pod) == owner.key
        and pod["metadata"]["name"] == owner.pod(index)
        and labels_of(pod).get(JOB_LABEL) == owner.name
    )
