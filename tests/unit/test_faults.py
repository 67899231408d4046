"""What ended a pod, what that costs, and what is noted of it."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.jobs import NOW, job
from tests.unit.pods import FIRST_ATTEMPT, conditions, deleted, ended, look, real, state
from trainyard.spec.status import Status
from trainyard_operator.identity import SPEC_ANNOTATION


def test_foreign_json_is_shown_as_text() -> None:
    failed = ended(1, 1)
    failed["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = "Traceback\n42"
    assert "42" in look([real(0), failed]).status["message"]


def test_a_failed_worker_is_replaced_at_once_and_counted_once() -> None:
    pods = [real(0), ended(1, 137)]
    first = look(pods, {"checkpoint": "00000010-00001"})
    assert [gone.name for gone in first.delete] == ["job-1"]
    assert first.status["restarts"] == 1
    again = look(pods, first.status)
    assert again.status["restarts"] == 1, "a look repeated after a crash"
    assert [gone.name for gone in again.delete] == ["job-1"]
    assert look([real(0)], again.status).create == (1,)


def test_failures_without_a_checkpoint_between_wait_longer_each_time() -> None:
    status: dict[str, Any] = {}
    waits = []
    for number in range(4):
        failed = ended(1, 137)
        failed["metadata"]["uid"] = f"pod-{number}"
        seen = look([real(0), failed], status)
        status = seen.status
        waits.append(seen.again or 0)
        assert bool(seen.delete) == (not seen.again)
    assert waits == [0, 5, 10, 20]


@pytest.mark.parametrize(
    ("failed", "counts", "reason"),
    [
        (ended(1, 143, outcome="Stopped"), 0, "asked to go"),
        (ended(1, 137, reason="OOMKilled"), 1, "out of memory"),
        (ended(1, 75, outcome="Infrastructure", message="the head died"), 1, "the head died"),
    ],
    ids=["preempted", "oom", "retry"],
)
def test_status_reports_why_a_pod_ended(failed: dict[str, Any], counts: int, reason: str) -> None:
    seen = look([real(0), failed])
    assert state(seen)[0] == "Restarting"
    assert reason in seen.status["message"]
    assert seen.status["restarts"] == counts


def test_a_users_error_fails_the_job_with_its_words_and_no_restart() -> None:
    failed = ended(0, 5, outcome="UserError", message="KeyError: 'label'", where="train.py:7")
    seen = look([failed, real(1)])
    assert state(seen) == ("Failed", "JobFailed")
    assert seen.status["message"] == "KeyError: 'label' (train.py:7)"
    assert seen.status["restarts"] == 0
    assert [gone.name for gone in seen.delete] == ["job-1"], "the first pod's log is still read"
    assert {"Failed", "Finished"} <= {kind for kind, value in conditions(seen).items() if value == "True"}


def test_too_many_restarts_fail_the_job() -> None:
    before = {"restarts": 1, "restartTimes": ["2025-12-31T23:59:00Z"]}
    seen = look([real(0), ended(1, 137)], before, job(restart={"maxRestarts": 1}))
    assert state(seen) == ("Failed", "TooManyRestarts")


def test_faults_outside_the_window_do_not_count_against_the_budget() -> None:
    before: dict[str, Any] = {}
    for hour in range(5):
        seen = look(
            [real(0), ended(1, 75, uid=hour)],
            before,
            job(restart={"maxRestarts": 1}),
            now=NOW + timedelta(hours=2 * hour),
        )
        before = {**seen.status, "checkpoint": f"{hour}"}
    assert state(seen)[0] == "Restarting"
    assert seen.status["restarts"] == 5


def test_an_attempt_is_noted_with_its_cause_and_what_it_cost() -> None:
    told = dict(FIRST_ATTEMPT)
    first = look([real(0), real(1)], progress=told)
    told |= {"attempt": 2, "resumed": "00000004-00001", "cause": "rank 1: killed", "step": 4}
    second = look([real(0), real(1)], first.status, progress=told, now=NOW + timedelta(seconds=60))
    assert second.status["attempts"][-1] == {
        "number": 2, "startTime": "2026-01-01T00:01:00Z", "resumedFrom": "00000004-00001", "cause": "rank 1: killed", "lostSteps": 3,
    }  # fmt: skip
    assert second.status["restarts"] == 1
    third = look([real(0), real(1)], second.status, progress=told, now=NOW + timedelta(seconds=90))
    assert (third.status["restarts"], len(third.status["attempts"])) == (1, 2)
    told |= {"attempt": 3, "cause": "rank 0: killed", "reached": 9}
    fourth = look([real(0), real(1)], third.status, progress=told, now=NOW + timedelta(seconds=120))
    assert fourth.status["restarts"] == 2
    assert fourth.status["attempts"][-1]["lostSteps"] == 5, "reports come more often than the status is written"


@pytest.mark.parametrize("suspended", [True, False])
def test_an_attempt_after_a_suspension_or_a_change_says_so(suspended: bool) -> None:
    told = dict(FIRST_ATTEMPT)
    before = look([real(0), real(1)], progress=told).status
    old = [real(0), real(1)]
    for each in old:
        each["metadata"]["annotations"] = {SPEC_ANNOTATION: "another"}
    before = look([] if suspended else old, before, job(suspend=suspended), progress=told).status
    told |= {"attempt": 2, "resumed": "00000004-00001", "step": 4}
    again = look([real(0), real(1)], before, progress=told, now=NOW + timedelta(seconds=60)).status
    assert again["attempts"][-1]["cause"] == ("spec.suspend was true" if suspended else "the manifest has changed")
    assert again["restarts"] == 0


def test_what_breaks_because_a_pod_was_asked_to_leave_is_no_fault() -> None:
    told = dict(FIRST_ATTEMPT)
    first = look([real(0), real(1)], progress=told)
    leaving = deleted(1, 10)
    asked = look([real(0), leaving], first.status, progress=told, now=NOW + timedelta(seconds=30))
    same = look([real(0), leaving], asked.status, progress=told, now=NOW + timedelta(seconds=31))
    assert same.status == asked.status, "told once"
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    second = look([real(0), real(1)], same.status, progress=told, now=NOW + timedelta(seconds=60))
    assert second.status.get("restarts", 0) == 0
    told |= {"attempt": 3, "cause": "rank 1: killed"}
    third = look([real(0), real(1)], second.status, progress=told, now=NOW + timedelta(seconds=90))
    assert third.status["restarts"] == 1


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen leaving", "gone at once"])
def test_a_pod_that_was_deleted_by_force_is_no_restart(is_seen: bool) -> None:
    told = dict(FIRST_ATTEMPT)
    first = look([real(0), real(1)], progress=told)
    pods = [real(0), deleted(1, 0)] if is_seen else [real(0)]
    later = NOW + timedelta(seconds=30)
    seen = look(pods, first.status, progress=told, now=later, has_removed=not is_seen)
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    second = look([real(0), real(1)], seen.status, progress=told, now=NOW + timedelta(seconds=60))
    assert second.status["restarts"] == 0


def test_a_fault_that_cost_a_pod_is_counted_once() -> None:
    told = dict(FIRST_ATTEMPT)
    first = look([real(0), real(1)], progress=told)
    lost = look([real(0), ended(1, 137)], first.status, progress=told, now=NOW + timedelta(seconds=30))
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    again = look([real(0), real(1)], lost.status, progress=told, now=NOW + timedelta(seconds=60))
    assert again.status["restarts"] == 1


def test_a_lost_node_is_no_fault_of_the_job() -> None:
    before = look([real(0), real(1)], progress={"attempt": 1, "phase": "training"}).status
    lost = look([real(0), real(1)], before, lost_nodes={"node-1": NOW}, now=NOW + timedelta(seconds=5))
    told = {"attempt": 2, "cause": "the actor's node was terminated", "phase": "training"}
    after = look([real(0), real(1)], lost.status, progress=told, now=NOW + timedelta(seconds=30))
    assert after.status["attempts"][-1]["cause"] == "job-1: node node-1 is not ready"
    assert after.status["restarts"] == 0


def test_an_init_container_that_failed_is_told() -> None:
    ended_with = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no route to the mirror\n"}}
    waits = {"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}
    failed = real(
        1, "Failed", initContainerStatuses=[{"name": "fetch", "state": ended_with}], containerStatuses=[waits]
    )
    seen = look([real(0), failed])
    assert state(seen) == ("Restarting", "Restarting")
    assert "init container fetch failed: no route to the mirror (kubectl logs job-1 -c fetch)" in seen.status["message"]


def test_sidecar_killed_later_is_no_cause() -> None:
    failed = ended(0, 5, outcome="UserError", message="no such model")
    failed["status"]["initContainerStatuses"] = [{"name": "proxy", "state": {"terminated": {"exitCode": 143}}}]
    seen = look([failed, real(1)])
    assert state(seen) == ("Failed", "JobFailed")
    assert seen.status["message"] == "no such model"


LIMIT = {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"memory": "512Mi"}}}]}}


def killed(number: int = 0, limit: str | None = "512Mi") -> dict[str, Any]:
    """A pod that the kernel killed under a memory limit."""
    pod = ended(1, 137, reason="OOMKilled", uid=number + 1)
    pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": limit} if limit else {}}
    return pod


@pytest.mark.parametrize(
    ("workers", "limit", "words"),
    [
        ({}, "512Mi", "(limit 512Mi, the namespace's default); set spec.workers.resources.memory"),
        ({"resources": {"memory": "512Mi"}}, "512Mi", "(limit 512Mi); raise spec.workers.resources.memory"),
        ({"template": LIMIT}, "512Mi", "(limit 512Mi); raise it in spec.workers.template"),
        ({}, None, "(no limit: the node's memory was full); set spec.workers.resources.memory"),
    ],
    ids=["the namespace's", "the manifest's", "the overlay's", "none"],
)
def test_memory_limit_is_told_with_its_origin(workers: dict[str, Any], limit: str | None, words: str) -> None:
    seen = look([real(0), killed(limit=limit)], made=job(workers={"count": 2, **workers}))
    assert seen.status["message"] == f"job-1 was killed: out of memory {words}"


def test_same_end_three_times_fails_the_job() -> None:
    status: dict[str, Any] = {}
    for number in range(3):
        seen = look([real(0), killed(number)], status, now=NOW + timedelta(minutes=number))
        status = seen.status
    assert state(seen) == ("Failed", "SameEndAgain")
    assert status["message"].startswith("job-1 was killed: out of memory (limit 512Mi, the namespace's default)")
    assert status["message"].endswith("(3 times, nothing committed between)")
    assert status["restarts"] == 3
    Status.model_validate(status)


def test_same_end_after_a_checkpoint_counts_again_from_one() -> None:
    status: dict[str, Any] = {}
    for number in range(4):
        status["checkpoint"] = f"0000000{number // 2}-00001"
        seen = look([real(0), killed(number)], status, now=NOW + timedelta(minutes=number))
        status = seen.status
    assert state(seen)[0] == "Restarting"


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ([ended(1, 1, uid=number + 1) for number in range(3)], "SameEndAgain"),
        ([ended(1, 75, uid=number + 1, outcome="Infrastructure", message="a") for number in range(3)], "BackingOff"),
        ([ended(1, 137, uid=number + 1) for number in range(3)], "BackingOff"),
        ([killed(1), ended(1, 1, uid=2), killed(3)], "BackingOff"),
        ([killed(1), ended(1, 143, uid=2, outcome="Stopped"), killed(3)], "BackingOff"),
    ],
    ids=["exit code", "the driver compares these", "killed from outside", "different ends", "twice, and asked to go"],
)
def test_which_ends_are_compared(pods: list[dict[str, Any]], reason: str) -> None:
    status: dict[str, Any] = {}
    for number, pod in enumerate(pods):
        status = look([real(0), pod], status, now=NOW + timedelta(minutes=number)).status
    assert status["reason"] == reason


def died(finished: int | None, **told: Any) -> dict[str, Any]:
    """A pod that ran for an hour and was killed, so many seconds after now, if its node knows when."""
    pod = ended(1, 137, **told)
    pod["status"]["startTime"] = "2025-12-31T23:00:00Z"
    if finished is not None:
        at = (NOW + timedelta(seconds=finished)).isoformat().replace("+00:00", "Z")
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = at
    return pod


@pytest.mark.parametrize(
    ("pod", "back", "restarts"),
    [
        (died(None), 0, 0),
        (died(-40), 0, 0),
        (died(20), 0, 0),
        (died(600), 0, 1),
        (died(None), -7200, 1),
        (died(None, outcome="Infrastructure", message="the head died"), 0, 1),
    ],
    ids=[
        "end unknown",
        "ended with the node",
        "seen as the kubelet starts",
        "ended later",
        "node never lost",
        "the agent's word",
    ],
)
def test_pod_that_died_with_its_node_is_no_fault(pod: dict[str, Any], back: int, restarts: int) -> None:
    seen = look([real(0), pod], back_since={"node-1": NOW + timedelta(seconds=back)}, now=NOW + timedelta(minutes=11))
    assert seen.status["restarts"] == restarts
    assert (seen.status["message"] == "job-1: node node-1 was lost, and is back") == (restarts == 0)


def test_attempt_after_a_node_that_came_back_is_no_fault() -> None:
    before = look([real(0), real(1)], progress=FIRST_ATTEMPT).status
    report = FIRST_ATTEMPT | {"attempt": 2, "cause": "the actor's node was terminated"}
    seen = look(
        [real(0), died(None)], before, back_since={"node-1": NOW}, progress=report, now=NOW + timedelta(minutes=1)
    )
    assert seen.status["restarts"] == 0
    assert seen.status["reason"] == "NodeLost"
