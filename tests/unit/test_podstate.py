"""A pod counts by its trainer: what sidecars do is no news of the training."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.jobs import NOW, job
from tests.unit.pods import look, real, state
from trainyard_operator.podstate import stage_of

RUNS = {"name": "proxy", "state": {"running": {}}}
DONE = {"name": "proxy", "state": {"terminated": {"exitCode": 0}}}


def trainer(exit_code: int | None = None, waiting: str | None = None, message: str = "") -> dict[str, Any]:
    """The status of the trainer: it runs, waits for something, or has ended."""
    if waiting is not None:
        return {"name": "trainer", "image": "x:9", "state": {"waiting": {"reason": waiting, "message": message}}}
    if exit_code is None:
        return {"name": "trainer", "state": {"running": {}}}
    return {"name": "trainer", "state": {"terminated": {"exitCode": exit_code, "message": message}}}


def beside(
    container: dict[str, Any], sidecar: dict[str, Any] = RUNS, native: bool = False, index: int = 0
) -> dict[str, Any]:
    """A pod whose sidecar runs, in containers or (native) in initContainers."""
    if native:
        return real(index, "Running", initContainerStatuses=[sidecar], containerStatuses=[container])
    return real(index, "Running", containerStatuses=[sidecar, container])


@pytest.mark.parametrize(
    ("pod", "stage"),
    [
        (beside(trainer(0)), "Succeeded"),
        (beside(trainer(5)), "Failed"),
        (beside(trainer(75), native=True), "Failed"),
        (beside(trainer()), "Running"),
        (beside(trainer(waiting="ErrImagePull")), "Pending"),
        (real(0, "Failed", containerStatuses=[trainer(0), DONE]), "Succeeded"),
        (real(0, "Succeeded", containerStatuses=[trainer(5), DONE]), "Failed"),
        (real(0, "Failed"), "Failed"),
        (real(0, "Failed", containerStatuses=[trainer()]), "Failed"),
        (real(0, "Pending"), "Pending"),
    ],
    ids=[
        "ended well", "ended badly", "ended beside a native sidecar", "runs", "image is missing", "sidecar failed",
        "sidecar ended well", "evicted before it began", "evicted by the kubelet", "not begun",
    ],
)  # fmt: skip
def test_stage_is_that_of_the_trainer(pod: dict[str, Any], stage: str) -> None:
    assert stage_of(pod) == stage


@pytest.mark.parametrize("native", [False, True], ids=["sidecar", "native sidecar"])
@pytest.mark.parametrize(
    ("exit_code", "said", "restarts"),
    [(0, ("Complete", "TrainingComplete"), 0), (5, ("Failed", "JobFailed"), 0), (75, ("Restarting", "Restarting"), 1)],
    ids=["0", "5", "75"],
)
def test_end_of_the_trainer_counts_beside_a_sidecar(
    exit_code: int, said: tuple[str, str], restarts: int, native: bool
) -> None:
    alone = job(workers={"count": 1})
    seen = look([beside(trainer(exit_code), native=native)], made=alone)
    assert state(seen) == said
    assert seen.status["restarts"] == restarts
    assert [(gone.name, gone.grace_seconds) for gone in seen.delete] == [("job-0", 30)], (
        "the sidecar holds it no longer"
    )
    assert seen.create == ()


def test_image_of_the_trainer_is_missed_beside_a_sidecar() -> None:
    waits = beside(trainer(waiting="ImagePullBackOff", message="not found"))
    seen = look([waits], made=job(workers={"count": 1}))
    assert state(seen) == ("Pending", "ImageCannotBePulled")
    assert seen.status["message"] == "job-0: x:9: not found"


def test_native_sidecar_that_crashes_is_named() -> None:
    crashing = {"name": "proxy", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    status = {"initContainerStatuses": [crashing], "containerStatuses": [trainer(waiting="PodInitializing")]}
    seen = look([real(0, "Pending", **status)], made=job(workers={"count": 1}))
    assert state(seen) == ("Pending", "SidecarCrashes")
    assert "kubectl logs job-0 -c proxy --previous" in seen.status["message"]


def leaving(index: int, asked: int, finalizers: list[str], phase: str = "Running") -> dict[str, Any]:
    """A pod that was asked to go so many seconds ago, with ten seconds to do so."""
    pod = real(index, phase)
    over = NOW + timedelta(seconds=10 - asked)
    pod["metadata"] |= {
        "deletionTimestamp": over.isoformat().replace("+00:00", "Z"),
        "deletionGracePeriodSeconds": 10,
        "finalizers": finalizers,
    }
    return pod


HELD = "job-1 has ended and is kept by its finalizers: example.com/a, example.com/b"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, "Restarting"), ({"suspend": True}, "Suspending")],
    ids=["running", "suspended"],
)
def test_pod_that_a_finalizer_keeps_is_named(changes: dict[str, Any], expected: str) -> None:
    pods = [real(0), leaving(1, 16, ["example.com/a", "example.com/b"])]
    seen = look(pods, {"state": "Running"}, job(**changes))
    assert seen.status["state"] == expected
    assert seen.status["message"].startswith(HELD)


def test_pod_that_still_has_time_to_save_is_not_held() -> None:
    seen = look([real(0), leaving(1, 4, ["example.com/a"])], {"state": "Running"})
    assert state(seen) == ("Restarting", "Evicted")
    assert seen.again == 11, "six seconds to go, and five more"
    gone = look([real(0), leaving(1, 16, [])], {"state": "Running"})
    assert state(gone) == ("Restarting", "Evicted")
