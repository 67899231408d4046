"""Whether there is another attempt after one that failed, and when."""

from dataclasses import dataclass

from trainyard.spec.model import Restart
from trainyard.train.work import Result

_FIRST_DELAY, _MAX_DELAY = 1.0, 60.0


@dataclass(frozen=True)
class Ended:
    """An attempt that failed."""

    result: Result
    progressed: bool
    """Whether it had committed a checkpoint of its own."""
    at: float = 0.0
    """When, in seconds of a clock that only goes forward."""


@dataclass(frozen=True)
class Decision:
    """Seconds until the next attempt, or None for no more; with the reason."""

    delay: float | None
    reason: str


def decide(history: list[Ended], restart: Restart) -> Decision:
    """What to do after the failures of a run, oldest first.

    A user's error is not tried again, and neither is an error that came back at the same step with nothing
    committed between: the next time would not differ. That does not hold for the loss of what it ran on. Anything
    else is tried again, at once while the run makes progress, and with growing delays while it does not.
    """
    last = history[-1]
    if last.result.outcome == "UserError":
        return Decision(None, last.result.message)
    counted = [ended for ended in history if not ended.result.free]
    if sum(last.at - ended.at < restart.window_seconds for ended in counted) > restart.max_restarts:
        budget = f"restart.maxRestarts is {restart.max_restarts} in {restart.window_seconds} s"
        return Decision(None, f"{last.result.message} ({budget})")
    alike = 0
    for ended in reversed(history):
        if _kind(ended.result) != _kind(last.result):
            break
        alike += 1
        if ended.progressed:
            break
    # An exception of known origin that comes back is the job's own; a death without words may be bad luck twice.
    if alike >= (2 if last.result.where else 3) and not last.progressed and not last.result.lost:
        return Decision(
            None, f"{last.result.message} ({alike} times at step {last.result.step}, nothing committed between)"
        )
    stuck = 0
    for ended in reversed(history):
        if ended.progressed:
            break
        stuck += 1
    delay = min(_MAX_DELAY, _FIRST_DELAY * 2 ** (stuck - 2)) if stuck > 1 else 0.0
    return Decision(delay, "restarting" if not delay else f"restarting in {delay:.0f} s")


def _kind(result: Result) -> tuple[int, str]:
    return result.step, result.where or result.message
