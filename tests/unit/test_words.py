"""What the operator says of a job, and why it waits."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.jobs import NOW
from tests.unit.pods import deleted, look, real, state


def test_what_was_reported_before_the_newest_pod_began_is_not_running() -> None:
    told = {"step": 30, "total": 120, "phase": "training", "moved": NOW.timestamp()}
    pods = [real(0), real(1, startTime="2026-01-01T00:00:05Z")]
    assert state(look(pods, {"state": "Starting"}, progress=told))[0] == "Starting"
    assert state(look(pods, {"state": "Starting"}, progress={**told, "moved": NOW.timestamp() + 9}))[0] == "Running"
    assert state(look(pods, {"state": "Running"}, progress=told))[0] == "Running", "a spare that came later"


def test_new_operator_keeps_state_running() -> None:
    pods = [real(0), real(1)]
    running = look(pods, progress={"step": 1, "total": 2, "phase": "training"})
    assert state(look(pods, running.status)) == ("Running", "Running")


def test_why_a_job_that_ran_lacks_a_pod_is_told() -> None:
    told = {"step": 3, "total": 9, "phase": "training"}
    ran = look([real(0), real(1)], progress=told).status
    leaving = deleted(1, 10)
    asked = look([real(0), leaving], ran, progress=told)
    assert state(asked) == ("Restarting", "Evicted")
    assert "job-1 was asked to go" in asked.status["message"]
    assert look([real(0), leaving], asked.status, progress=told).status == asked.status
    gone = look([real(0)], ran, progress=told)
    assert state(gone) == ("Restarting", "PodLost")
    assert "job-1 was deleted" in gone.status["message"]
    again = look([real(0), real(1, "Pending")], gone.status, progress=told)
    assert state(again) == ("Starting", "Starting")
    assert "before: job-1 was deleted" in again.status["message"]
    told |= {"attempt": 2, "cause": "the actor's node was terminated unexpectedly"}
    after = look([real(0), real(1)], again.status, progress=told).status
    assert after["attempts"][-1]["cause"].startswith("job-1 was deleted"), "not in Ray's words"
    assert "fault" not in after
    assert state(look([], look([]).status)) == ("Starting", "Starting"), "it never ran"


def test_why_pods_cannot_be_made_is_told() -> None:
    seen = look([], refused='pods "job-0" is forbidden: exceeded quota')
    assert state(seen) == ("Pending", "PodsRefused")
    assert "exceeded quota" in seen.status["message"]


def test_missing_mounts_are_reported_and_made_again() -> None:
    since = NOW.isoformat().replace("+00:00", "Z")
    waits = {
        "startTime": since,
        "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}],
    }
    pods = [real(0), real(1, "Pending", **waits)]
    soon = look(pods)
    assert (state(soon)[1], soon.ensure, soon.again) == ("Starting", False, 20)
    late = look(pods, soon.status, now=NOW + timedelta(seconds=21))
    assert (state(late), late.ensure) == (("Pending", "ContainerCreating"), True)
    assert "kubectl describe pod job-1" in late.status["message"]


def test_a_job_whose_others_go_on_without_the_lost_node_runs() -> None:
    lost = {"node-2": NOW - timedelta(seconds=5)}
    told = {"attempt": 2, "step": 30, "total": 120, "phase": "training", "reported": NOW.timestamp()}
    assert (
        state(look([real(0), real(1), real(2)], {"state": "Running"}, lost_nodes=lost, progress=told))[0] == "Running"
    )


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}]}, "Unschedulable", "nvidia.com/gpu"),
        ({"containerStatuses": [{"name": "trainer", "image": "x:9", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}, "ImageCannotBePulled", "x:9"),
        ({"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}}]}, "SecretOrConfigMissing", '"s3"'),
        ({"initContainerStatuses": [{"image": "y:1", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}, "ImageCannotBePulled", "y:1"),
    ],
    ids=["gpu", "image", "secret", "init image"],
)  # fmt: skip
def test_why_a_job_waits_is_told(status: dict[str, Any], reason: str, words: str) -> None:
    seen = look([real(0, "Pending", **status), real(1)])
    assert state(seen) == ("Pending", reason)
    assert words in seen.status["message"]


def test_what_holds_a_pod_back_is_told() -> None:
    held = real(0, "Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}])
    held["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    seen = look([held, real(1, "Pending")])
    assert state(seen) == ("Pending", "SchedulingGated")
    assert "kueue.x-k8s.io/admission" in seen.status["message"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}],
          "initContainerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}, "kubectl describe pod job-1"),
        ({}, "no scheduler has looked at job-1: does one run that is called mine?"),
    ],
    ids=["a volume, before an init container", "an unknown scheduler"],
)  # fmt: skip
def test_a_pod_of_which_nobody_says_anything_is_told_after_a_while(status: dict[str, Any], words: str) -> None:
    silent = real(1, "Pending", **status)
    silent["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    silent["spec"]["schedulerName"] = "mine"
    if not status:
        del silent["spec"]["nodeName"]
    soon = look([real(0), silent], now=NOW + timedelta(seconds=5))
    assert (state(soon), soon.again) == (("Starting", "Starting"), 15.0)
    seen = look([real(0), silent], now=NOW + timedelta(seconds=20))
    assert state(seen) == ("Pending", "ContainerCreating")
    assert words in seen.status["message"]
    assert seen.ensure
