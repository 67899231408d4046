"""The numbers of a status."""

from datetime import timedelta

from tests.unit.jobs import NOW, OWNER, SETTINGS, job
from tests.unit.pods import ended, look, real, state
from trainyard.spec.model import TrainerJob
from trainyard.spec.status import Status
from trainyard_operator.render import objects


def test_status_has_numbers_and_the_words_of_columns() -> None:
    told = {"step": 30, "total": 120, "loss": 0.25123, "phase": "training", "eta": 123}
    seen = look([real(0), real(1)], progress=told)
    assert state(seen) == ("Running", "Running")
    numbers = {"step": 30, "steps": 120, "progressPercentage": 25, "estimatedRemainingSeconds": 123, "loss": "0.2512"}
    assert numbers.items() <= seen.status.items()
    assert seen.status["columns"] == {"step": "30/120", "progress": "25%", "eta": "2m3s"}
    assert not seen.create
    assert not seen.delete


def test_goodput_is_what_the_attempt_reports() -> None:
    told = {"step": 30, "total": 120, "step_seconds": 1.0, "goodput_share": 0.421, "phase": "training"}
    before = look([real(0), real(1)]).status
    seen = look([real(0), real(1)], before, progress=told, now=NOW + timedelta(seconds=5000))
    assert seen.status["goodputPercentage"] == 42
    silent = look([real(0), real(1)], progress={"step": 30, "total": 120, "step_seconds": 1.0})
    assert "goodputPercentage" not in silent.status


def test_loss_that_json_lacks_is_nan() -> None:
    assert look([real(0), real(1)], progress={"step": 3, "total": 9, "loss": None}).status["loss"] == "nan"


def test_suspended_job_keeps_its_status() -> None:
    told = {"step": 30, "total": 120, "goodput_share": 0.5, "phase": "training"}
    ran = look([real(0), real(1)]).status
    stopped = look([], ran, job(suspend=True), progress=told, now=NOW + timedelta(seconds=40)).status
    assert look([], stopped, job(suspend=True), progress=told, now=NOW + timedelta(seconds=80)).status == stopped


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


def test_single_pod_has_no_service() -> None:
    def kinds(made: TrainerJob) -> set[str]:
        return {obj["kind"] for obj in objects(made, OWNER, SETTINGS)}

    alone, pods = job(workers={"count": 1}), [real(0, podIP="10.0.0.7")]
    assert kinds(job()) - kinds(alone) == {"Service"}
    assert kinds(job(workers={"count": 1, "spares": 1})) == kinds(job())
    assert look(pods, made=alone).status["dashboard"] == "http://10.0.0.7:8265"
    for gone in ([], [real(0, "Failed", podIP="10.0.0.7")]):
        assert "dashboard" not in look(gone, {"dashboard": "http://10.0.0.7:8265"}, alone).status
    assert look(pods).status["dashboard"].startswith(f"http://job-0.{OWNER.child}.")
