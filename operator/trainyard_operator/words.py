"""What a job is doing, or why it waits, in words: a ladder of rows, of which the first that applies is said. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from trainyard_operator import reasons
from trainyard_operator.images import outdated_words
from trainyard_operator.leaving import FORCE_AFTER, held_words, lost_words
from trainyard_operator.look import Look
from trainyard_operator.podstate import is_asked_to_leave, is_leaving
from trainyard_operator.times import moment_of
from trainyard_operator.waits import silent_since, why_silent, why_waiting

_AT_WORK = ("training", "evaluating", "exporting")
SILENT_AFTER = 20.0
"""Seconds that a silent pod has to begin: then what it waits for may not be there."""
_LATE_REPORT = 3.0
"""Seconds by which a report may be late: the interval of reports, and Kubernetes' resolution of a second."""

_NO_FAULTS = (reasons.EVICTED, reasons.NODE_LOST)

Waiting = tuple[str, str]
"""A reason, and a message."""


@dataclass(frozen=True, kw_only=True)
class _View:
    """What the rows of the ladder ask of a look."""

    look: Look
    wait: float | None
    """Seconds until failed pods are replaced; None for at once."""

    @property
    def count(self) -> int:
        """How many workers the job wants."""
        return self.look.job.spec.workers.count

    @property
    def running(self) -> int:
        """How many of the workers run; a spare takes the place of one."""
        return min(self.count, self.look.world.staying)

    @property
    def all_run(self) -> bool:
        """Whether no worker is missing."""
        return self.running == self.count

    @property
    def ran(self) -> bool:
        """Whether the job made steps at the last look."""
        return self.look.status.get("state") == "Running"

    @property
    def workers(self) -> str:
        """How many workers run, in words."""
        return f"{self.running} of {self.count} workers run"

    @cached_property
    def makes_steps(self) -> bool:
        """Whether the training processes train: reported since the newest pod began, or known from before."""
        report = self.look.world.progress
        if not report:  # an operator that was just started has no report yet
            return self.ran
        return report.get("phase") in _AT_WORK and (self.ran or _is_news(self.look))

    @cached_property
    def waiting(self) -> Waiting | None:
        """Why a pod does not run, or cannot be made."""
        world = self.look.world
        for pod in world.pods:
            reason = why_waiting(pod)
            if reason:
                return reason
        if world.refused and not self.all_run:
            return reasons.REFUSED, world.refused
        if silent_for_long(self.look):
            silent = [pod for pod in world.pods if silent_since(pod)]
            return reasons.CREATING, why_silent(silent[0])
        return None

    @cached_property
    def missing(self) -> Waiting | None:
        """Why a job that ran has too few workers: a pod was asked to go, or is gone."""
        evicted = self.look.status.get("reason") == reasons.EVICTED
        for pod in self.look.world.pods:
            if is_asked_to_leave(pod) and (self.ran or evicted):
                name = pod["metadata"]["name"]
                return reasons.EVICTED, f"{name} was asked to go: it saves, and a new one takes its place"
        by_index = self.look.world.by_index
        there = [index for index, pod in by_index.items() if not is_leaving(pod)]
        gone = [index for index in range(self.count) if index not in there]
        if not self.ran or not gone:
            return None
        return reasons.POD_LOST, f"{self.look.owner.pod(gone[0])} was deleted; a new one takes its place"


def say(look: Look, wait: float | None) -> None:
    """Say in the status what the job does; `wait`: seconds until failed pods are replaced, None for at once."""
    if look.note.ended:
        return
    view = _View(look=look, wait=wait)
    verdict = next(verdict for applies, verdict in _LADDER if applies(view))
    verdict(view)


def silent_for_long(look: Look) -> bool:
    """Whether nobody has said for a while why a pod does not begin."""
    return look.world.silent is not None and look.world.silent >= SILENT_AFTER


def _is_news(look: Look) -> bool:
    """Whether there was a step, or an attempt, since the newest pod began: reports from before are over."""
    times = [pod.get("status", {}).get("startTime") for pod in look.world.pods]
    moments = [moment_of(time) for time in times if time]
    # The last step of a pod that died may be reported when it is replaced already.
    return not moments or look.world.progress.get("moved", 0.0) > max(moments).timestamp() + _LATE_REPORT


def _replaces_failed(view: _View) -> None:
    failure = view.look.failures[0]
    if view.wait:
        message = f"{failure.message}; its pod is replaced in {view.wait:.0f} s"
        view.look.note.halt("Restarting", reasons.BACKING_OFF, message)
        return
    reason = failure.reason if failure.reason in _NO_FAULTS else reasons.RESTARTING
    view.look.note.halt("Restarting", reason, failure.message)


def _waits_for_node(view: _View) -> None:
    lost = lost_words(view.look.world) or ""
    view.look.note.blame(lost)
    message = f"{lost}; its pods are replaced when it has been so for {FORCE_AFTER:.0f} s"
    view.look.note.halt("Restarting", reasons.NODE_LOST, message)


def _waits_for_finalizer(view: _View) -> None:
    view.look.note.halt("Restarting", reasons.HELD, held_words(view.look.world) or "")


def _starts_processes(view: _View) -> None:
    report = view.look.world.progress
    cause = view.look.status.get("fault") or report.get("cause") or "the training processes are started again"
    reason = reasons.EVICTED if report.get("free") else reasons.RESTARTING
    view.look.note.halt("Restarting", reason, str(cause))


def _runs(view: _View) -> None:
    note = view.look.note
    note.status.pop("fault", None)
    note.set("Running", True, reasons.RUNNING, view.workers)
    spare = f"a spare waits: {view.waiting[1]}" if view.waiting else ""
    note.say("Running", reasons.RUNNING, spare or outdated_words(view.look.world))


def _waits(view: _View) -> None:
    assert view.waiting is not None
    view.look.note.halt("Pending", *view.waiting)


def _lacks_pod(view: _View) -> None:
    assert view.missing is not None
    view.look.note.blame(view.missing[1])
    view.look.note.halt("Restarting", *view.missing)


def _starts(view: _View) -> None:
    fault = view.look.status.get("fault")
    message = f"{view.workers}; before: {fault}" if fault else view.workers
    view.look.note.halt("Starting", reasons.STARTING, message)


_LADDER: tuple[tuple[Callable[[_View], object], Callable[[_View], None]], ...] = (
    (lambda view: view.look.failures, _replaces_failed),
    (lambda view: lost_words(view.look.world), _waits_for_node),
    (lambda view: held_words(view.look.world), _waits_for_finalizer),
    (lambda view: view.all_run and view.look.world.progress.get("phase") == "restarting", _starts_processes),
    (lambda view: view.all_run and view.makes_steps, _runs),
    (lambda view: view.waiting, _waits),
    (lambda view: view.missing, _lacks_pod),
    (lambda view: True, _starts),
)
"""When a row applies, and what it says; the first that applies wins."""
