"""What the operator does next with a job."""

from datetime import timedelta
from typing import Any

from tests.unit.jobs import NOW, OWNER, SETTINGS, job
from tests.unit.pods import conditions, ended, look, real, state
from trainyard.spec.model import TrainerJob
from trainyard_operator.observe import invalid
from trainyard_operator.render import pod
from trainyard_operator.world import World


def test_a_new_job_gets_its_pods() -> None:
    seen = look([])
    assert seen.create == (0, 1)
    assert conditions(seen)["Accepted"] == "True"
    assert state(seen) == ("Starting", "Starting")


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


def test_a_look_at_the_same_says_the_same() -> None:
    pods = [real(0), real(1)]
    first = look(pods)
    assert look(pods, first.status, now=NOW + timedelta(hours=1)).status == first.status


def test_spares_are_pods_that_nobody_waits_for() -> None:
    made = job(workers={"count": 2, "spares": 1})
    told = {"step": 3, "total": 9, "phase": "training"}
    assert look([], made=made).create == (0, 1, 2)
    waiting = real(2, "Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "no node"}])
    seen = look([real(0), real(1), waiting], made=made, progress=told)
    assert state(seen) == ("Running", "Running")
    assert "a spare waits" in seen.status["message"]
    assert [gone.name for gone in look([real(0), real(1), real(2)]).delete] == ["job-2"]


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


def test_a_job_that_is_made_invalid_says_whether_its_pods_run() -> None:
    before = look([real(0), real(1)], {"state": "Running"}).status
    for pods, expected in (([real(0)], {"Running": "True"}), ([], {"Running": "False", "Finished": "True"})):
        status = invalid(4, before, "bad", World(pods=pods, now=NOW))
        found = {each["type"]: each["status"] for each in status["conditions"]}
        assert found == {"Accepted": "False", **expected}
        assert (status["state"], status["message"]) == ("Invalid", "bad")


def test_invalid_job_runs_once_its_manifest_is_mended() -> None:
    refused = invalid(1, {}, "bad", World(pods=[], now=NOW))
    assert "acceptedGeneration" not in refused, "nothing of it is fixed"
    mended = look([], refused)
    assert conditions(mended)["Finished"] == "False"
    assert state(mended) == ("Starting", "Starting")
    assert mended.create == (0, 1)
    assert mended.status["acceptedGeneration"] == 3


def test_what_was_accepted_once_stays_accepted_as_that() -> None:
    accepted = look([]).status
    assert invalid(2, accepted, "bad", World(pods=[], now=NOW))["acceptedGeneration"] == 3


def test_manifest_of_a_complete_job_may_become_invalid() -> None:
    complete = look([ended(0, 0, outcome="Complete")]).status
    status = invalid(2, complete, "bad", World(pods=[], now=NOW))
    assert status["state"] == "Complete"
    again = look([], status)
    assert again.create == ()
    assert state(again)[0] == "Complete"


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
