"""Pods of a job as the API server shows them, and a look at them."""

import json
from typing import Any

from tests.unit.jobs import NOW, OWNER, SETTINGS, job
from trainyard.spec.model import TrainerJob
from trainyard_operator.look import Seen
from trainyard_operator.observe import observe
from trainyard_operator.render import pod
from trainyard_operator.world import World


def real(index: int, phase: str = "Running", **status: Any) -> dict[str, Any]:
    """A pod as the API server shows it."""
    made = json.loads(json.dumps(pod(job(), OWNER, SETTINGS, index)))
    made["metadata"]["uid"] = f"{index}-{phase}-{sorted(status)}"
    made["status"] = {"phase": phase, **status}
    made["spec"]["nodeName"] = f"node-{index}"
    del made["metadata"]["annotations"]  # whatever the job of a test is, it is of that
    return made


def ended(index: int, code: int, reason: str = "Error", uid: int = 0, **told: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": json.dumps(told) if told else ""}}
    phase = "Failed" if code else "Succeeded"
    made = real(index, phase, containerStatuses=[{"name": "trainer", "state": state}])
    made["metadata"]["uid"] += str(uid or "")
    return made


FIRST_ATTEMPT = {"attempt": 1, "resumed": None, "cause": None, "step": 7, "total": 20, "phase": "training"}
"""A report."""


def deleted(index: int, grace_seconds: int) -> dict[str, Any]:
    """A running pod that has been deleted, and has so long to go."""
    made = real(index)
    made["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:40Z", "deletionGracePeriodSeconds": grace_seconds}
    return made


def look(
    pods: list[dict[str, Any]], before: dict[str, Any] | None = None, made: TrainerJob | None = None, **world: Any
) -> Seen:
    return observe(
        made or job(),
        OWNER,
        3,
        before or {},
        World(pods=pods, now=world.pop("now", NOW), **world),
    )


def state(seen: Seen) -> tuple[str, str]:
    return seen.status["state"], seen.status["reason"]


def conditions(seen: Seen) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in seen.status["conditions"]}
