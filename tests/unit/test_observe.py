"""What the operator says of a job, and what it does next."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.jobs import NOW, OWNER, SETTINGS, job
from trainyard.spec.model import TrainerJob
from trainyard.spec.status import Status
from trainyard_operator.observe import Seen, invalid, observe
from trainyard_operator.render import SPEC_ANNOTATION, objects, pod
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
    made = real(index, phase, containerStatuses=[{"state": state}])
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
        World(pods, world.pop("lost_nodes", {}), now=world.pop("now", NOW), **world),
    )


def state(seen: Seen) -> tuple[str, str]:
    return seen.status["state"], seen.status["reason"]


def conditions(seen: Seen) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in seen.status["conditions"]}


def test_a_new_job_gets_its_pods() -> None:
    seen = look([])
    assert seen.create == (0, 1)
    assert conditions(seen)["Accepted"] == "True"
    assert state(seen) == ("Starting", "Starting")


def test_status_has_numbers_and_the_words_of_columns() -> None:
    told = {"step": 30, "total": 120, "loss": 0.25123, "phase": "training", "eta": 123}
    seen = look([real(0), real(1)], progress=told)
    assert state(seen) == ("Running", "Running")
    numbers = {"step": 30, "steps": 120, "progressPercentage": 25, "estimatedRemainingSeconds": 123, "loss": "0.2512"}
    assert numbers.items() <= seen.status.items()
    assert seen.status["columns"] == {"step": "30/120", "progress": "25%", "eta": "2m3s"}
    assert not seen.create
    assert not seen.delete


def test_a_job_is_complete_when_its_driver_says_so_and_the_first_pod_ends_by_itself() -> None:
    seen = look([real(0), real(1)], progress={"complete": "s3://runs/final", "step": 4, "total": 4})
    assert state(seen) == ("Complete", "TrainingComplete")
    assert seen.status["message"] == "s3://runs/final"
    assert [gone.name for gone in seen.delete] == ["job-1"]
    later = look([real(0)], seen.status)
    assert later.delete == ()
    assert later.again is not None
    assert later.status == seen.status
    much_later = look([real(0)], seen.status, now=NOW + timedelta(minutes=4))
    assert much_later.status == seen.status, "an ended job's numbers stand"
    assert [gone.name for gone in much_later.delete] == ["job-0"], "one that does not end holds its GPUs no longer"


def test_what_was_reported_before_the_newest_pod_began_is_not_running() -> None:
    told = {"step": 30, "total": 120, "phase": "training", "moved": NOW.timestamp()}
    pods = [real(0), real(1, startTime="2026-01-01T00:00:05Z")]
    assert state(look(pods, {"state": "Starting"}, progress=told))[0] == "Starting"
    assert state(look(pods, {"state": "Starting"}, progress={**told, "moved": NOW.timestamp() + 9}))[0] == "Running"
    assert state(look(pods, {"state": "Running"}, progress=told))[0] == "Running", "a spare that came later"


def test_an_operator_that_was_just_started_does_not_say_that_the_job_starts() -> None:
    pods = [real(0), real(1)]
    running = look(pods, progress={"step": 1, "total": 2, "phase": "training"})
    assert state(look(pods, running.status)) == ("Running", "Running")


def test_a_last_line_that_is_json_but_no_message_of_ours_is_words() -> None:
    failed = ended(1, 1)
    failed["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = "Traceback\n42"
    assert "42" in look([real(0), failed]).status["message"]


def test_a_look_at_the_same_says_the_same() -> None:
    pods = [real(0), real(1)]
    first = look(pods)
    assert look(pods, first.status, now=NOW + timedelta(hours=1)).status == first.status


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
def test_why_a_pod_ended_is_told_and_preemption_is_free(failed: dict[str, Any], counts: int, reason: str) -> None:
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


def test_a_pod_that_was_deleted_by_force_was_not_asked() -> None:
    told = dict(FIRST_ATTEMPT)
    first = look([real(0), real(1)], progress=told)
    gone = deleted(1, 0)
    seen = look([real(0), gone], first.status, progress=told, now=NOW + timedelta(seconds=30))
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    second = look([real(0), real(1)], seen.status, progress=told, now=NOW + timedelta(seconds=60))
    assert second.status["restarts"] == 1


def test_a_fault_that_cost_a_pod_is_counted_once() -> None:
    told = dict(FIRST_ATTEMPT)
    first = look([real(0), real(1)], progress=told)
    lost = look([real(0), ended(1, 137)], first.status, progress=told, now=NOW + timedelta(seconds=30))
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    again = look([real(0), real(1)], lost.status, progress=told, now=NOW + timedelta(seconds=60))
    assert again.status["restarts"] == 1


def test_goodput_is_the_share_of_steps_that_counted() -> None:
    told = {"step": 30, "total": 120, "step_seconds": 1.0, "phase": "training"}
    before = look([real(0), real(1)]).status
    assert (
        look([real(0), real(1)], before, progress=told, now=NOW + timedelta(seconds=60)).status["goodputPercentage"]
        == 50
    )


def test_time_in_which_a_job_was_suspended_is_not_lost() -> None:
    told = {"step": 30, "total": 120, "step_seconds": 1.0, "phase": "training"}
    ran = look([real(0), real(1)]).status
    stopped = look([], ran, job(suspend=True), progress=told, now=NOW + timedelta(seconds=40)).status
    again = look([], stopped, job(suspend=True), progress=told, now=NOW + timedelta(seconds=80)).status
    assert again == stopped
    resumed = look([], stopped, now=NOW + timedelta(seconds=1000)).status
    after = look([real(0), real(1)], resumed, progress=told, now=NOW + timedelta(seconds=1020)).status
    assert after["goodputPercentage"] == 50


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


def test_spares_are_pods_that_nobody_waits_for() -> None:
    made = job(workers={"count": 2, "spares": 1})
    told = {"step": 3, "total": 9, "phase": "training"}
    assert look([], made=made).create == (0, 1, 2)
    waiting = real(2, "Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "no node"}])
    seen = look([real(0), real(1), waiting], made=made, progress=told)
    assert state(seen) == ("Running", "Running")
    assert "a spare waits" in seen.status["message"]
    assert [gone.name for gone in look([real(0), real(1), real(2)]).delete] == ["job-2"]


def test_every_status_fits_its_schema() -> None:
    told = {"attempt": 2, "resumed": "1-1", "cause": "x", "step": 7, "total": 20, "phase": "training", "eval_loss": 1.0}
    told |= {"step_seconds": 0.1, "eta": 3, "loss": 0.5, "checkpoint": "00000004-00001"}
    for pods in ([], [real(0), real(1)], [real(0), ended(1, 75)], [ended(0, 5, message="bad")], [ended(0, 0)]):
        Status.model_validate(look(pods, progress=told).status)
    Status.model_validate(look([], made=job(suspend=True)).status)


def test_what_is_longer_than_the_schema_takes_is_cut() -> None:
    told = {f"eval_f1_class_{number}": 0.5 for number in range(100)} | {"eval_" + "long" * 20: 1.0, "phase": "p" * 99}
    seen = look([real(0), real(1)], progress=told)
    Status.model_validate(seen.status)
    assert len(seen.status["metrics"]) == 64


def made_for(spec: TrainerJob, index: int) -> dict[str, Any]:
    """A running pod that was made for a spec."""
    pods = real(index)
    pods["metadata"]["annotations"] = pod(spec, OWNER, SETTINGS, index)["metadata"]["annotations"]
    return pods


def test_a_changed_spec_rolls_out_when_all_pods_have_saved_and_gone() -> None:
    before, after = job(), job(workers={"count": 1})
    pods = [made_for(before, 0), made_for(before, 1)]
    first = look(pods, made=after)
    assert state(first) == ("Restarting", "SpecChanged")
    assert [(gone.name, gone.grace_seconds) for gone in first.delete] == [("job-0", None), ("job-1", None)]
    pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    second = look(pods[:1], first.status, after)
    assert not second.create, "one of them still saves"
    assert not second.delete
    third = look([], second.status, after)
    assert third.create == (0,)
    assert third.status["restarts"] == 0


def test_what_only_the_operator_reads_of_a_spec_starts_no_pod_anew() -> None:
    pods = [made_for(job(), 0), made_for(job(), 1)]
    seen = look(pods, made=job(ttlSecondsAfterFinished=60, activeDeadlineSeconds=600, suspend=False))
    assert seen.delete == ()


def test_why_pods_cannot_be_made_is_told() -> None:
    seen = look([], refused='pods "job-0" is forbidden: exceeded quota')
    assert state(seen) == ("Pending", "PodsRefused")
    assert "exceeded quota" in seen.status["message"]


def test_a_pod_that_waits_for_a_volume_is_told_and_what_it_mounts_is_made_again() -> None:
    since = NOW.isoformat().replace("+00:00", "Z")
    waits = {"startTime": since, "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}
    pods = [real(0), real(1, "Pending", **waits)]
    soon = look(pods)
    assert (state(soon)[1], soon.ensure, soon.again) == ("Starting", False, 20)
    late = look(pods, soon.status, now=NOW + timedelta(seconds=21))
    assert (state(late), late.ensure) == (("Pending", "ContainerCreating"), True)
    assert "kubectl describe pod job-1" in late.status["message"]


def test_a_job_that_is_made_invalid_says_whether_its_pods_run() -> None:
    before = look([real(0), real(1)], {"state": "Running"}).status
    for pods, runs in (([real(0)], "True"), ([], "False")):
        status = invalid(4, before, "bad", World(pods, {}, now=NOW))
        assert {each["type"]: each["status"] for each in status["conditions"]} == {"Accepted": "False", "Running": runs}
        assert (status["state"], status["message"]) == ("Invalid", "bad")


def test_a_complete_job_stays_complete() -> None:
    first = look([ended(0, 0, outcome="Complete"), real(1)])
    assert conditions(first)["Complete"] == conditions(first)["Finished"] == "True"
    assert [gone.name for gone in first.delete] == ["job-1"]
    later = look([], first.status)
    assert later.create == ()
    assert later.status == first.status


def test_a_job_that_never_gets_all_its_workers_holds_none_of_them_for_ever() -> None:
    waiting = job(pendingDeadlineSeconds=60)
    stuck = real(1, "Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}])
    first = look([real(0), stuck], made=waiting)
    assert first.again == 60
    late = look([real(0), stuck], first.status, waiting, now=NOW + timedelta(seconds=61))
    assert state(late) == ("Failed", "PendingDeadlineExceeded")
    assert "Insufficient cpu" in late.status["message"]
    assert {gone.name for gone in late.delete} == {"job-0", "job-1"}


def test_a_job_out_of_time_is_failed_and_one_past_its_life_is_deleted() -> None:
    limited = job(activeDeadlineSeconds=100, ttlSecondsAfterFinished=10)
    pods = [real(0), real(1)]
    first = look(pods, made=limited)
    assert first.again == 100
    late = look(pods, first.status, limited, now=NOW + timedelta(seconds=100))
    assert state(late) == ("Failed", "DeadlineExceeded")
    assert (late.again, late.expired) == (10, False)
    after = look([], late.status, limited, now=NOW + timedelta(seconds=104))
    assert (after.again, after.expired) == (6, False)
    assert look([], late.status, limited, now=NOW + timedelta(seconds=111)).expired


def test_suspend_lets_the_pods_save_and_then_says_so() -> None:
    suspended = job(suspend=True)
    first = look([real(0), real(1)], made=suspended)
    assert state(first)[0] == "Suspending"
    assert [gone.grace_seconds for gone in first.delete] == [None, None]
    gone = look([], first.status, suspended)
    assert state(gone)[0] == "Suspended"
    again = look([], gone.status, job())
    assert again.create == (0, 1)
    assert [c["status"] for c in again.status["conditions"] if c["type"] == "Suspended"] == ["False"]


def test_pods_on_a_lost_node_are_forgotten_by_force_after_a_while() -> None:
    soon = look([real(0), real(1)], lost_nodes={"node-1": NOW - timedelta(seconds=2)})
    assert not soon.delete
    assert soon.again
    assert state(soon) == ("Restarting", "NodeLost")
    assert "job-1: node node-1 is not ready" in soon.status["message"]
    late = look([real(0), real(1)], lost_nodes={"node-1": NOW - timedelta(seconds=20)})
    assert [(gone.name, gone.grace_seconds) for gone in late.delete] == [("job-1", 0)]


def test_a_job_whose_others_go_on_without_the_lost_node_runs() -> None:
    lost = {"node-2": NOW - timedelta(seconds=5)}
    told = {"attempt": 2, "step": 30, "total": 120, "phase": "training", "reported": NOW.timestamp()}
    assert (
        state(look([real(0), real(1), real(2)], {"state": "Running"}, lost_nodes=lost, progress=told))[0] == "Running"
    )


def test_a_lost_node_is_no_fault_of_the_job() -> None:
    before = look([real(0), real(1)], progress={"attempt": 1, "phase": "training"}).status
    lost = look([real(0), real(1)], before, lost_nodes={"node-1": NOW}, now=NOW + timedelta(seconds=5))
    told = {"attempt": 2, "cause": "the actor's node was terminated", "phase": "training"}
    after = look([real(0), real(1)], lost.status, progress=told, now=NOW + timedelta(seconds=30))
    assert after.status["attempts"][-1]["cause"] == "job-1: node node-1 is not ready"
    assert after.status["restarts"] == 0


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}]}, "Unschedulable", "nvidia.com/gpu"),
        ({"containerStatuses": [{"image": "x:9", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}, "ImageCannotBePulled", "x:9"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}}]}, "SecretOrConfigMissing", '"s3"'),
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


def test_an_init_container_that_failed_is_told() -> None:
    ended_with = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no route to the mirror\n"}}
    waits = {"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}
    failed = real(
        1, "Failed", initContainerStatuses=[{"name": "fetch", "state": ended_with}], containerStatuses=[waits]
    )
    seen = look([real(0), failed])
    assert state(seen) == ("Restarting", "Restarting")
    assert "init container fetch failed: no route to the mirror (kubectl logs job-1 -c fetch)" in seen.status["message"]


def test_a_sidecar_that_was_killed_after_the_trainer_is_not_why_the_pod_ended() -> None:
    failed = ended(0, 5, outcome="UserError", message="no such model")
    failed["status"]["initContainerStatuses"] = [{"name": "proxy", "state": {"terminated": {"exitCode": 143}}}]
    seen = look([failed, real(1)])
    assert state(seen) == ("Failed", "JobFailed")
    assert seen.status["message"] == "no such model"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}],
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


def test_only_a_job_of_several_pods_has_a_service_and_a_dashboard_by_its_name() -> None:
    def kinds(made: TrainerJob) -> set[str]:
        return {obj["kind"] for obj in objects(made, OWNER, SETTINGS)}

    alone, pods = job(workers={"count": 1}), [real(0, podIP="10.0.0.7")]
    assert kinds(job()) - kinds(alone) == {"Service"}
    assert kinds(job(workers={"count": 1, "spares": 1})) == kinds(job())
    assert look(pods, made=alone).status["dashboard"] == "http://10.0.0.7:8265"
    for gone in ([], [real(0, "Failed", podIP="10.0.0.7")]):
        assert "dashboard" not in look(gone, {"dashboard": "http://10.0.0.7:8265"}, alone).status
    assert look(pods).status["dashboard"].startswith(f"http://job-0.{OWNER.child}.")
