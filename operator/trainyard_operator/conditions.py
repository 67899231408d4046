"""Conditions in the making: pure."""

from datetime import datetime

from trainyard.spec.status import LINE_LENGTH
from trainyard_operator.api import Object
from trainyard_operator.times import duration_text, text_of


class Conditions:
    """Conditions in the making: the time of a change is kept when nothing changed."""

    def __init__(self, status: Object, before: Object, generation: int, now: datetime) -> None:
        self.status, self.generation, self.now = status, generation, text_of(now)
        self.known = {condition["type"]: condition for condition in before.get("conditions", [])}
        self.ended = False

    def set(self, kind: str, value: bool, reason: str, message: str) -> None:
        """Say of one thing whether it holds."""
        text = "True" if value else "False"
        old = self.known.get(kind, {})
        since = old.get("lastTransitionTime") if old.get("status") == text else self.now
        self.known[kind] = {
            "type": kind, "status": text, "reason": reason, "message": message[:LINE_LENGTH],
            "lastTransitionTime": since, "observedGeneration": self.generation,
        }  # fmt: skip

    def end(self, kind: str, reason: str, message: str) -> None:
        """The job is over: Complete or Failed, and Finished either way."""
        self.set("Running", False, reason, message)
        self.set(kind, True, reason, message)
        self.set("Finished", True, reason, message)
        self.status["completionTime"] = self.now
        self.status.pop("estimatedRemainingSeconds", None)
        self.say(kind, reason, message)
        self.ended = True

    def halt(self, state: str, reason: str, message: str) -> None:
        """No steps are made, and why."""
        self.set("Running", False, reason, message)
        self.say(state, reason, message)

    def say(self, state: str, reason: str, message: str) -> None:
        """The one word for people, and why."""
        self.status |= {"state": state, "reason": reason, "message": message[:LINE_LENGTH]}

    def blame(self, fault: str) -> None:
        """Keep what has cost the job a pod, for when something is said of what follows from it."""
        self.status["fault"] = fault[:LINE_LENGTH]

    def done(self) -> Object:
        """The status with its conditions, and with its numbers in words."""
        self.status["columns"] = columns_of(self.status)
        self.status["conditions"] = [self.known[kind] for kind in sorted(self.known)]
        return self.status


def columns_of(status: Object) -> Object:
    """What the columns of `kubectl get` show of a status: step, progress and eta, of those that are known."""
    columns = {}
    if "step" in status and "steps" in status:
        columns["step"] = f"{status['step']}/{status['steps']}"
    if "progressPercentage" in status:
        columns["progress"] = f"{status['progressPercentage']}%"
    if "estimatedRemainingSeconds" in status:
        columns["eta"] = duration_text(status["estimatedRemainingSeconds"])
    return columns
