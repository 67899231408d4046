"""Whether there is another attempt after one that failed, and when."""

from collections.abc import Hashable
from dataclasses import dataclass

from trainyard.protocol.ending import Cause, Ending
from trainyard.spec.model import Restart

_FIRST_DELAY, _MAX_DELAY = 1.0, 60.0
_TWICE, _THRICE, _OFTEN = 2, 3, 8
_MOST_ALIKE = {
    # An exception that comes back at the same place is the job's own. A death without words may be bad luck twice.
    Cause.CODE: _TWICE,
    # The delays before the eighth failure add up to about one minute (63 s).
    Cause.NETWORK: _OFTEN,
    Cause.RENDEZVOUS: _OFTEN,
}
"""How often the same failure may come in a row with nothing committed between; three times for other causes."""


@dataclass(frozen=True)
class Ended:
    """An attempt that failed."""

    ending: Ending
    progressed: bool
    """Whether it had committed a checkpoint of its own."""
    at: float = 0.0
    """When, in seconds of a clock that only goes forward."""


@dataclass(frozen=True)
class Decision:
    """Seconds until the next attempt, or None for no more; with the reason."""

    delay: float | None
    reason: str
    final: bool = False
    """Whether nobody else need try again either: the next time would not differ."""


def decide(history: list[Ended], restart: Restart) -> Decision:
    """What to do after the failures of a run, oldest first.

    The job's own error is not retried. A failure that came back a few times in a row, with nothing committed between,
    is not retried either, unless the node, worker or disk failed. Anything else is retried: at once while the run
    makes progress, with growing delays while it does not.
    """
    last = history[-1]
    if last.ending.outcome == "UserError":
        return Decision(None, last.ending.message, final=True)
    counted = [ended for ended in history if not ended.ending.excused]
    recent = [ended for ended in counted if last.at - ended.at < restart.window_seconds]
    if len(recent) > restart.max_restarts:
        budget = f"restart.maxRestarts is {restart.max_restarts} in {restart.window_seconds} s"
        return Decision(None, f"{last.ending.message} ({budget})")
    alike = _alike(history)
    if alike >= _MOST_ALIKE.get(last.ending.cause, _THRICE) and not last.progressed and not last.ending.host_failed:
        again = f"{alike} times at step {last.ending.step}, nothing committed between"
        return Decision(None, f"{last.ending.message} ({again})", final=True)
    delay = _delay(history)
    return Decision(delay, "restarting" if not delay else f"restarting in {delay:.0f} s")


def _alike(history: list[Ended]) -> int:
    """How many of the last failures in a row are the same as the last one, up to one that had committed something."""
    count = 0
    for ended in reversed(history):
        if _identity(ended.ending) != _identity(history[-1].ending):
            break
        count += 1
        if ended.progressed:
            break
    return count


def _identity(ending: Ending) -> Hashable:
    """What makes two failures the same: the cause and the step; of an exception of open origin also its place."""
    if ending.cause is Cause.CODE:
        return ending.cause, ending.step, ending.where or ending.message
    return ending.cause, ending.step


def _delay(history: list[Ended]) -> float:
    """Seconds to wait: none after the first failure since something was committed, then twice as long each time."""
    stuck = 0
    for ended in reversed(history):
        if ended.progressed:
            break
        stuck += 1
    return min(_MAX_DELAY, _FIRST_DELAY * 2 ** (stuck - 2)) if stuck > 1 else 0.0
