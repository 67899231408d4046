"""The numbers of a status: what rank 0 reported, and what follows from it. Pure."""

from datetime import datetime

from trainyard.spec.model import TrainerJob
from trainyard.spec.status import METRICS, WORD_LENGTH
from trainyard_operator.api import Object
from trainyard_operator.faults import note_attempt
from trainyard_operator.identity import Owner
from trainyard_operator.podstate import is_leaving, stage_of
from trainyard_operator.render import DASHBOARD_PORT, run_uri
from trainyard_operator.times import moment_of, text_of
from trainyard_operator.world import World


def kept(before: Object) -> Object:
    """The status as it was, without its conditions: those are made again."""
    return {key: value for key, value in before.items() if key != "conditions"}


def numbers(job: TrainerJob, owner: Owner, before: Object, world: World) -> Object:
    """The status as it was, with what was reported since."""
    status = kept(before)
    status.setdefault("startTime", text_of(world.now))
    status.setdefault("restarts", 0)
    status["resultUri"] = f"{run_uri(job, owner)}/final"
    status.pop("dashboard", None)
    host = _dashboard_host(job, owner, world)
    if host:
        status["dashboard"] = f"http://{host}:{DASHBOARD_PORT}"
    note_attempt(job, status, before, world)
    report = world.progress
    if report:
        status.pop("estimatedRemainingSeconds", None)
        status |= _place(world) | _words(world)
    measured = _measured(world)
    if measured:
        status["metrics"] = measured
    return status


def active_seconds(status: Object, now: datetime) -> float:
    """Seconds in which the job could make steps: not those in which it was suspended."""
    since = (now - moment_of(status["startTime"])).total_seconds() if "startTime" in status else 0.0
    return float(status.get("activeSeconds", 0)) + since


def _place(world: World) -> Object:
    """How far the training is: step, progress, time that is left, loss and goodput."""
    report = world.progress
    place: Object = {}
    if "step" in report and report.get("total"):
        place |= {"step": report["step"], "steps": report["total"]}
        place["progressPercentage"] = report["step"] * 100 // report["total"]
    if report.get("eta") is not None:
        place["estimatedRemainingSeconds"] = report["eta"]
    if "loss" in report:
        loss = report["loss"]
        place["loss"] = "nan" if loss is None else f"{loss:.4g}"  # JSON has neither NaN nor infinity
    if "goodput_share" in report:
        place["goodputPercentage"] = round(100 * report["goodput_share"])
    return place


def _words(world: World) -> Object:
    """What is taken from a report as it is, cut where the schema has a limit."""
    words = {}
    for name in ("attempt", "checkpoint", "phase"):
        value = world.progress.get(name)
        if value is not None:
            words[name] = value[:WORD_LENGTH] if isinstance(value, str) else value
    return words


def _measured(world: World) -> list[Object]:
    """The metrics of the newest evaluation, by name."""
    metrics = []
    for name, value in sorted(world.progress.items()):
        is_metric = name.startswith("eval_") and len(name) <= WORD_LENGTH
        if is_metric and isinstance(value, int | float):
            metrics.append({"name": name, "value": f"{value:.6g}"})
    return metrics[:METRICS]


def _dashboard_host(job: TrainerJob, owner: Owner, world: World) -> str | None:
    """The first pod's name, or the address of a single pod, which has no Service that would name it."""
    if job.spec.workers.pods > 1:
        return owner.head
    first = world.first
    if first is None or stage_of(first) != "Running" or is_leaving(first):
        return None
    address: str | None = first["status"].get("podIP")
    return address
