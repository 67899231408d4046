"""How often to save, where it is by time.

The interval at which saves cost as much as the work that a fault is expected to undo is the square root of
2 · cost of a save · mean time between faults (J. W. Young, 1974; J. T. Daly, 2006). It is never shorter than a commit.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_UNITS = {"s": 1, "m": 60, "h": 3600}
SECONDS_BETWEEN_FAULTS = 30 * 24 * 3600.0
"""Assumed of one worker."""
_FIRST = 60.0
_SHORTEST = 15.0
_MUCH = 1.5


@dataclass(frozen=True)
class Costs:
    """What saves have been measured to cost, in seconds; 0 as long as nothing is known."""

    stall: float
    """For which training stands still at one save. What is written beside the steps slows them, too: nobody can measure
    that in a run, and it is not counted."""
    commit: float
    """From the beginning of a save to its commit."""


def interval(every: str, workers: int, costs: Costs) -> float:
    """Seconds between two saves."""
    if every != "Auto":
        return float(int(every[:-1]) * _UNITS[every[-1]])
    if not costs.commit:
        return _FIRST
    best = math.sqrt(2 * costs.stall * SECONDS_BETWEEN_FAULTS / workers)
    return max(_SHORTEST, costs.commit, best)


@dataclass
class Cadence:
    """Tells when the next save is due."""

    every: str
    workers: int
    costs: Callable[[], Costs]
    tell: Callable[[str], None]
    """Takes what Auto has chosen, with its reason, whenever that has changed much."""
    _last: float = field(default_factory=time.monotonic)
    _told: float = 0.0

    def due(self) -> bool:
        """Whether it is time for a save. Counts anew when it is."""
        costs = self.costs()
        seconds = interval(self.every, self.workers, costs)
        if time.monotonic() - self._last < seconds:
            return False
        self._last = time.monotonic()
        if self.every == "Auto" and costs.commit and not self._told / _MUCH < seconds < self._told * _MUCH:
            self._told = seconds
            cost = f"one stops training for {1000 * costs.stall:.3g} ms and is committed after {costs.commit:.1f} s"
            self.tell(f"checkpoint.every: Auto saves every {seconds:.0f} s from here on: {cost}")
        return True
