"""What the verbs say of a job: its row in a list, and everything about it in words."""

import re
from datetime import UTC, datetime
from typing import Any

from trainyard.spec.model import TrainerJob

Object = dict[str, Any]
_EVENTS = 12
UNSEEN_SECONDS = 10
"""After these an operator that watches the namespace has looked at a new job: it needs one or two."""
HEADINGS = ("NAME", "STATE", "WORKERS", "STEP", "PROGRESS", "ETA", "LOSS", "AGE")


def row(job: Object, now: datetime) -> list[str]:
    """The cells of a job under HEADINGS; empty where nothing is known yet."""
    status = job.get("status", {})
    columns = status.get("columns", {})
    shown = [*(columns.get(name, "") for name in ("step", "progress", "eta")), status.get("loss", "")]
    workers = str(job["spec"].get("workers", {}).get("count", 1))
    return [job["metadata"]["name"], status.get("state", "New"), workers, *shown, _age(job, now)]


def child(name: str, uid: str) -> str:
    """Name of the Secret, the Service and the NetworkPolicy of a job, as the operator makes it."""
    return f"{name}-{uid[:8]}"


def token_secret(name: str, uid: str) -> str:
    """Name of the Secret with the token of a job's Ray cluster, as the operator makes it."""
    return f"{child(name, uid)}-ray"


def objects(job: TrainerJob) -> list[str]:
    """The objects that the operator makes for a job, as kubectl names them."""
    name, count = job.name, job.spec.workers.pods
    pods = [f"pod/{name}-{index}" for index in range(count)]
    made = child(name, "UID")
    service = [f"service/{made}"] if count > 1 else []
    return [*pods, *service, f"secret/{made}", f"secret/{made}-ray", f"networkpolicy/{made}"]


def condition(job: Object, kind: str) -> Object | None:
    """A condition of a job that is true, or None."""
    found = job.get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == kind and each["status"] == "True"), None)


def refused(job: Object) -> str | None:
    """What is wrong with a manifest that the operator does not accept.

    None when it accepts it or has not looked, and of a job that is over.
    """
    status = job.get("status", {})
    if ended(job) or status.get("observedGeneration") != job["metadata"]["generation"]:
        return None
    found = (each for each in status.get("conditions", []) if each["type"] == "Accepted" and each["status"] == "False")
    return next((str(each["message"]) for each in found), None)


def unseen_seconds(job: Object, now: datetime) -> int | None:
    """Seconds for which no operator has looked at a job; None when one has, or before UNSEEN_SECONDS."""
    if job.get("status"):
        return None
    seconds = _seconds_old(job, now)
    return seconds if seconds >= UNSEEN_SECONDS else None


def unseen(job: Object, now: datetime) -> str | None:
    """That no operator has looked at a job, with the fix; None when one has, or the job is new."""
    seconds = unseen_seconds(job, now)
    if seconds is None:
        return None
    namespace = job["metadata"]["namespace"]
    return (
        f"no operator has looked at it for {seconds} s: none watches the namespace {namespace}, or it is down. "
        f"Fix: trainyard doctor --namespace {namespace} says which"
    )


def no_dashboard(job: Object, pod: Object | None, now: datetime) -> str | None:
    """Why the Ray dashboard of a job cannot be opened, and what to do; None when its first pod, which has it, runs."""
    name = job["metadata"]["name"]
    state = ended(job)
    if state is not None:
        return f"{state}: the job has ended, and Ray with it"
    if condition(job, "Suspended"):
        return f"Suspended: no pods. trainyard resume {name} brings them back"
    warning = unseen(job, now)
    if warning is not None:
        return f"New: {warning}"
    phase = pod.get("status", {}).get("phase") if pod is not None else None
    if phase == "Running":
        return None
    return f"{_state(job.get('status', {}))}. trainyard logs -f {name} waits for it"


def ended(job: Object) -> str | None:
    """The state of a job that has ended, Complete or Failed; None of one that has not."""
    return next((kind for kind in ("Complete", "Failed") if condition(job, kind)), None)


def events_of(job: Object, events: list[Object]) -> list[Object]:
    """The events of a job and of its pods since it was made, the oldest first."""
    meta, pod = job["metadata"], re.compile(re.escape(job["metadata"]["name"]) + r"-\d+")

    def last(event: Object) -> str:
        return str(event.get("lastTimestamp") or event.get("eventTime") or "")

    found = [
        event for event in events
        if (of := event["involvedObject"]).get("uid") == meta["uid"]
        or (of["kind"] == "Pod" and pod.fullmatch(of["name"]) and last(event) >= meta["creationTimestamp"])
    ]  # fmt: skip
    return sorted(found, key=last)


def describe(job: Object, pods: list[Object], events: list[Object], now: datetime) -> str:
    """A job in words: what it does, why it waits, what has happened, of its pods only what went wrong."""
    status, meta = job.get("status", {}), job["metadata"]
    warning = unseen(job, now)
    state = _state(status) if warning is None else f"New: {warning}"
    lines = [
        ("Name", meta["name"]),
        ("Namespace", meta["namespace"]),
        ("State", state),
        ("Age", _age(job, now)),
    ]
    columns = status.get("columns", {})
    progress = " ".join(columns[name] for name in ("step", "progress") if name in columns)
    lines += [("Progress", progress), ("ETA", columns.get("eta", "")), ("Loss", status.get("loss", ""))]
    lines += [("Metrics", " ".join(f"{each['name']}={each['value']}" for each in status.get("metrics", [])))]
    lines += [("Checkpoint", status.get("checkpoint", "")), ("Restarts", str(status.get("restarts", "")))]
    goodput = f"{status['goodputPercentage']}%" if "goodputPercentage" in status else ""
    lines += [("Goodput", goodput), ("Result", status.get("resultUri", ""))]
    text = "".join(f"{name + ':':<13}{value}\n" for name, value in lines if value != "")
    text += _section("Attempts", [_attempt(each) for each in status.get("attempts", [])])
    text += _section("Pods", [f"{_pod(pod)}" for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))])
    told = [event for event in events if event["involvedObject"]["kind"] != "Pod" or event["type"] == "Warning"]
    return text + _section("Events", [_event(event) for event in told[-_EVENTS:]])


def _state(status: Object) -> str:
    words = [status.get("state", "New"), *([f"({status['reason']})"] if status.get("reason") else [])]
    return " ".join(words) + (f": {status['message']}" if status.get("message") else "")


def _attempt(attempt: Object) -> str:
    resumed = f"from {attempt['resumedFrom']}" if attempt.get("resumedFrom") else "from the start"
    lost = f"; {attempt['lostSteps']} steps done again" if attempt.get("lostSteps") else ""
    cause = f"; after: {attempt['cause']}" if attempt.get("cause") else ""
    return f"{attempt['number']}  {attempt['startTime']}  {resumed}{lost}{cause}"


def _pod(pod: Object) -> str:
    node = pod["spec"].get("nodeName", "no node")
    return f"{pod['metadata']['name']}  {pod.get('status', {}).get('phase', 'Pending')}  {node}"


def _event(event: Object) -> str:
    when = event.get("lastTimestamp") or event.get("eventTime") or ""
    of = event["involvedObject"]
    whose = f"{of['name']}: " if of["kind"] == "Pod" else ""
    return f"{when}  {event['type']}  {event['reason']}  {whose}{event.get('message', '').strip()}"


def _section(title: str, rows: list[str]) -> str:
    return f"{title}:\n" + "".join(f"  {each}\n" for each in rows) if rows else ""


def _seconds_old(job: Object, now: datetime) -> int:
    return int((now - datetime.fromisoformat(job["metadata"]["creationTimestamp"])).total_seconds())


def _age(job: Object, now: datetime) -> str:
    seconds = _seconds_old(job, now)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
