"""The operator's pure parts: what is rendered, what is said, and what is done next."""

import base64
import json
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import manifest
from trainyard.spec.manifest import validate
from trainyard.spec.model import TrainerJob
from trainyard.spec.status import Status
from trainyard_operator.gangs import KINDS
from trainyard_operator.observe import Seen, World, invalid, observe
from trainyard_operator.overlay import overlaid
from trainyard_operator.progress import Progress
from trainyard_operator.queue import KeyQueue
from trainyard_operator.reconcile import accepted
from trainyard_operator.render import Owner, Settings, objects, pod

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = Owner("team", "job", "uid-1")
SETTINGS = Settings("trainer:1", "https://operator:8443", "CA", b"secret")


def job(**changes: Any) -> TrainerJob:
    spec = {
        "model": {"source": "s3://m/bert"},
        "data": {"train": {"source": "s3://m/d.jsonl"}},
        "storage": {"uri": "s3://runs", "secret": "s3"},
        "workers": {"count": 2},
    }
    made, problems = validate(manifest(**{**spec, **changes}))
    assert made is not None, problems
    return made


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


def test_progress_is_told_in_texts() -> None:
    seen = look(
        [real(0), real(1)], progress={"step": 30, "total": 120, "loss": 0.25123, "phase": "training", "eta": "2m3s"}
    )
    assert state(seen) == ("Running", "Running")
    assert {key: seen.status[key] for key in ("step", "progress", "loss", "eta")} == {
        "step": "30/120", "progress": "25%", "loss": "0.2512", "eta": "2m3s",
    }  # fmt: skip
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
    told = {"step": 30, "total": 120, "phase": "training", "reported": NOW.timestamp()}
    pods = [real(0), real(1, startTime="2026-01-01T00:00:05Z")]
    assert state(look(pods, {"state": "Starting"}, progress=told))[0] == "Starting"
    assert state(look(pods, {"state": "Starting"}, progress={**told, "reported": NOW.timestamp() + 9}))[0] == "Running"
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
    told = {"attempt": 1, "resumed": None, "cause": None, "step": 7, "total": 20, "phase": "training"}
    first = look([real(0), real(1)], progress=told)
    told |= {"attempt": 2, "resumed": "00000004-00001", "cause": "rank 1: killed", "step": 4}
    second = look([real(0), real(1)], first.status, progress=told, now=NOW + timedelta(seconds=60))
    assert second.status["attempts"][-1] == {
        "number": 2, "startTime": "2026-01-01T00:01:00Z", "resumedFrom": "00000004-00001", "cause": "rank 1: killed", "lostSteps": 3,
    }  # fmt: skip
    assert second.status["restarts"] == 1
    third = look([real(0), real(1)], second.status, progress=told, now=NOW + timedelta(seconds=90))
    assert (third.status["restarts"], len(third.status["attempts"])) == (1, 2)
    told |= {"attempt": 3, "cause": "rank 0: killed"}
    fourth = look([real(0), real(1)], third.status, progress=told, now=NOW + timedelta(seconds=120))
    assert fourth.status["restarts"] == 2


def test_what_breaks_because_a_pod_was_asked_to_leave_is_no_fault() -> None:
    told = {"attempt": 1, "resumed": None, "cause": None, "step": 7, "total": 20, "phase": "training"}
    first = look([real(0), real(1)], progress=told)
    leaving = real(1)
    leaving["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:40Z", "deletionGracePeriodSeconds": 10}
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
    told = {"attempt": 1, "resumed": None, "cause": None, "step": 7, "total": 20, "phase": "training"}
    first = look([real(0), real(1)], progress=told)
    gone = real(1)
    gone["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:40Z", "deletionGracePeriodSeconds": 0}
    seen = look([real(0), gone], first.status, progress=told, now=NOW + timedelta(seconds=30))
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    second = look([real(0), real(1)], seen.status, progress=told, now=NOW + timedelta(seconds=60))
    assert second.status["restarts"] == 1


def test_a_fault_that_cost_a_pod_is_counted_once() -> None:
    told = {"attempt": 1, "resumed": None, "cause": None, "step": 7, "total": 20, "phase": "training"}
    first = look([real(0), real(1)], progress=told)
    lost = look([real(0), ended(1, 137)], first.status, progress=told, now=NOW + timedelta(seconds=30))
    told |= {"attempt": 2, "cause": "rank 1 went away"}
    again = look([real(0), real(1)], lost.status, progress=told, now=NOW + timedelta(seconds=60))
    assert again.status["restarts"] == 1


def test_goodput_is_the_share_of_steps_that_counted() -> None:
    told = {"step": 30, "total": 120, "step_seconds": 1.0, "phase": "training"}
    before = look([real(0), real(1)]).status
    assert look([real(0), real(1)], before, progress=told, now=NOW + timedelta(seconds=60)).status["goodput"] == "50%"


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
    told |= {"step_seconds": 0.1, "eta": "3s", "loss": 0.5, "checkpoint": "00000004-00001"}
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "None"])
def test_gangs_are_rendered_as_their_schedulers_read_them(kind: Any) -> None:
    made = job(
        queue="team-a",
        priorityClassName="high",
        workers={"count": 4, "spares": 1, "gpus": 1, "resources": {"cpu": "2"}},
    )
    settings = replace(SETTINGS, gang=kind)
    meta, spec = (rendered := pod(made, OWNER, settings, 1))["metadata"], rendered["spec"]
    groups = [obj for obj in objects(made, OWNER, settings) if obj["kind"] == "PodGroup"]
    names = {**meta["labels"], **meta["annotations"]}
    assert spec["priorityClassName"] == "high"
    expected: dict[str, tuple[dict[str, str], str | None, dict[str, Any] | None]] = {
        "Kueue": ({"kueue.x-k8s.io/queue-name": "team-a", "kueue.x-k8s.io/pod-group-name": OWNER.child, "kueue.x-k8s.io/pod-group-total-count": "5"}, None, None),
        "Volcano": ({"scheduling.k8s.io/group-name": OWNER.child}, "volcano", {"minMember": 4, "queue": "team-a", "priorityClassName": "high"}),
        "YuniKorn": ({
            "yunikorn.apache.org/app-id": "job-uid-1", "yunikorn.apache.org/queue": "team-a", "yunikorn.apache.org/task-group-name": "workers",
            "yunikorn.apache.org/task-groups": '[{"name": "workers", "minMember": 4, "minResource": {"cpu": "2", "nvidia.com/gpu": "1"}}]',
        }, "yunikorn", None),
        "KAI": ({"kai.scheduler/queue": "team-a", "pod-group-name": OWNER.child, "kai.scheduler/skip-podgrouper": "true"}, "kai-scheduler", {"minMember": 4, "queue": "team-a", "priorityClassName": "high"}),
        "Coscheduling": ({"scheduling.x-k8s.io/pod-group": OWNER.child}, None, {"minMember": 4}),
    }  # fmt: skip
    marks, scheduler, group = expected[kind]
    assert marks.items() <= names.items()
    assert spec.get("schedulerName") == scheduler
    assert [found["spec"] for found in groups] == ([group] if group else [])
    assert all(found["metadata"]["ownerReferences"] == [OWNER.reference] for found in groups)
    assert pod(job(schedulerName="mine"), OWNER, settings, 0)["spec"]["schedulerName"] == "mine"


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
    assert after.status["attempts"][-1]["cause"] == "the actor's node was terminated"
    assert after.status["restarts"] == 0


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}]}, "Unschedulable", "nvidia.com/gpu"),
        ({"containerStatuses": [{"image": "x:9", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}, "ImageCannotBePulled", "x:9"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}}]}, "SecretOrConfigMissing", '"s3"'),
    ],
    ids=["gpu", "image", "secret"],
)  # fmt: skip
def test_why_a_job_waits_is_told(status: dict[str, Any], reason: str, words: str) -> None:
    seen = look([real(0, "Pending", **status), real(1)])
    assert state(seen) == ("Pending", reason)
    assert words in seen.status["message"]


def test_rendering_is_deterministic_and_restricted() -> None:
    assert objects(job(), OWNER, SETTINGS) == objects(job(), OWNER, SETTINGS)
    spec = pod(job(), OWNER, SETTINGS, 1)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    secret = objects(job(), OWNER, SETTINGS)[0]
    texts = {name: base64.b64decode(data).decode() for name, data in secret["data"].items()}
    assert "secret" not in texts["job.json"].replace('"secret": "s3', "")
    assert texts["token"] not in (texts["job.json"] + texts["ca.crt"])
    assert texts["token"] not in json.dumps(spec)


def test_the_image_tells_the_agent_and_ray_where_the_operator_mounts_what_they_read() -> None:
    dockerfile = (Path(__file__).parents[2] / "jobs/Dockerfile").read_text()
    variables = re.findall(r"([A-Z_]+)=(/\S+)", dockerfile)
    mounts = {
        mount["mountPath"]: mount["name"]
        for mount in pod(job(), OWNER, SETTINGS, 0)["spec"]["containers"][0]["volumeMounts"]
    }
    secret = objects(job(), OWNER, SETTINGS)[0]["data"]
    told = {name: path.rpartition("/") for name, path in variables if path.rpartition("/")[0] in mounts}
    from_secret = {name: file for name, (folder, _, file) in told.items() if mounts[folder] == "job"}
    assert set(from_secret) == {"TRAINYARD_MANIFEST", "RAY_AUTH_TOKEN_PATH", "KUBEFLOW_TRAINER_SERVER_CA_CERT"}
    assert set(from_secret.values()) == set(secret)
    assert mounts[told["KUBEFLOW_TRAINER_SERVER_TOKEN"][0]] == "token"


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


@pytest.mark.parametrize(("cpu", "processes", "threads"), [("500m", 1, "1"), ("8", 2, "4"), ("7500m", 2, "3")])
def test_processes_take_the_threads_that_are_their_share(cpu: str, processes: int, threads: str) -> None:
    made = job(workers={"resources": {"cpu": cpu}, "processesPerWorker": processes})
    env = pod(made, OWNER, SETTINGS, 0)["spec"]["containers"][0]["env"]
    assert {"name": "OMP_NUM_THREADS", "value": threads} in env


def test_a_jobs_overlay_changes_how_its_pods_run_and_never_whose_they_are() -> None:
    template = {
        "metadata": {"labels": {"team": "a", "trainyard.dev/job-name": "other"}},
        "spec": {
            "nodeSelector": {"gpu": "h100"},
            "containers": [{"name": "trainer", "env": [{"name": "X", "value": "1"}]}, {"name": "side"}],
        },
    }
    made = pod(job(workers={"template": template}), OWNER, SETTINGS, 0)
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["metadata"]["labels"]["trainyard.dev/job-name"] == "job"
    assert made["spec"]["nodeSelector"] == {"gpu": "h100"}
    trainer, side = made["spec"]["containers"]
    assert trainer["image"] == "trainer:1"
    assert {"name": "X", "value": "1"} in trainer["env"]
    assert side == {"name": "side"}


def test_an_overlay_without_labels_and_annotations_leaves_whose_pod_it_is() -> None:
    made = pod(job(workers={"template": {"metadata": {"labels": None, "annotations": None}}}), OWNER, SETTINGS, 0)
    assert made["metadata"]["labels"]["trainyard.dev/job-name"] == "job"
    assert made["metadata"]["annotations"]


def test_an_overlay_takes_away_with_null() -> None:
    assert overlaid({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}}) == {"b": {"c": 2, "d": 3}}


def test_a_local_path_is_not_accepted() -> None:
    found = manifest(model={"source": "./bert"}, storage={"uri": "./runs"})
    made, problems = accepted({**found, "metadata": {"name": "job", "namespace": "team", "uid": "1"}})
    assert made is None
    assert {".".join(map(str, problem.path)) for problem in problems} >= {"spec.model.source", "spec.storage.uri"}


@pytest.mark.parametrize(("uri", "taken"), [("s3//x", False), ("runs", False), ("s3://x", True), ("/mnt/runs", True)])
def test_storage_is_a_uri_or_a_mounted_path(uri: str, taken: bool) -> None:
    found = manifest(model={"source": "org/m"}, data={"train": {"source": "org/d"}}, storage={"uri": uri})
    made, _ = accepted({**found, "metadata": {"name": "job", "namespace": "team", "uid": "1"}})
    assert (made is not None) == taken


def test_a_key_is_worked_on_once_at_a_time_and_again_when_it_changed_meanwhile() -> None:
    queue = KeyQueue()
    for _ in range(3):
        queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.take() == "b", "a is being worked on"
    queue.done("a")
    assert queue.take() == "a"


def test_a_failed_key_comes_again_later_and_a_closed_queue_lets_go() -> None:
    queue = KeyQueue()
    queue.add("a")
    start = time.monotonic()
    assert queue.take() == "a"
    queue.done("a", failed=True)
    assert queue.take() == "a"
    assert time.monotonic() - start >= 0.4
    taken: list[str | None] = []
    waiting = threading.Thread(target=lambda: taken.append(queue.take()))
    waiting.start()
    queue.close()
    waiting.join(5)
    assert taken == [None]


def test_a_report_of_an_attempt_that_is_over_or_of_a_job_that_was_before_is_not_taken() -> None:
    progress = Progress(lambda _: None)
    progress.take("team/job", "first", {"trainyard": {"attempt": 2, "phase": "restarting"}})
    progress.take("team/job", "first", {"trainyard": {"attempt": 1, "phase": "training", "step": 9}})
    assert progress.get("team/job", "first")["phase"] == "restarting"
    progress.take("team/job", "second", {"trainyard": {"attempt": 1, "phase": "starting"}})
    assert progress.get("team/job", "first") == {}
    assert progress.get("team/job", "second")["attempt"] == 1
