"""One look at a job, and what came of it."""

from dataclasses import dataclass
from functools import cached_property

from trainyard.spec.model import TrainerJob
from trainyard_operator.api import Object
from trainyard_operator.conditions import Conditions
from trainyard_operator.failures import Failure, failures_of
from trainyard_operator.identity import Owner
from trainyard_operator.podstate import Deletion
from trainyard_operator.world import World


@dataclass(frozen=True, kw_only=True)
class Look:
    """A job, what is there of it, and the status that is being made."""

    job: TrainerJob
    owner: Owner
    note: Conditions
    world: World

    @property
    def status(self) -> Object:
        """The status in the making."""
        return self.note.status

    @cached_property
    def failures(self) -> list[Failure]:
        """The pods that have failed and that nobody has deleted yet."""
        return failures_of(self.job, self.world)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look at a job came to."""

    status: Object
    create: tuple[int, ...] = ()
    """Indices of the pods to create."""
    delete: tuple[Deletion, ...] = ()
    again: float | None = None
    """Seconds until the job must be looked at, if nothing happens before."""
    expired: bool = False
    """Whether the job itself is to be deleted: its time to live is over."""
    ensure: bool = False
    """Whether pods have waited for a while for what they mount: it may be gone, and is made again."""


def soonest(*seconds: float | None) -> float | None:
    """The least of some waits in seconds; None when there is none."""
    waits = [wait for wait in seconds if wait is not None]
    return min(waits, default=None)
