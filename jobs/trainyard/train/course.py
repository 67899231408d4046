"""Where a training process is: its phase before the first step, and its Trainer once there is one."""

from dataclasses import dataclass
from typing import Any

from trainyard.train.events import Events
from trainyard.train.heartbeat import Awaited, Heart


@dataclass
class Course:
    """Reports the phases of a training process, and knows how far it came."""

    events: Events
    heart: Heart
    trainer: Any = None
    """The transformers.Trainer that trains; None until there is one."""

    @property
    def step(self) -> int:
        """The steps that are done; 0 before the Trainer has loaded its checkpoint."""
        return 0 if self.trainer is None else int(self.trainer.state.global_step)

    def enter(self, phase: str) -> None:
        """Begin a phase before the first step: it is shown, and the clock of restart.hangSeconds starts again."""
        self.events.send("phase", text=phase)
        self.heart.beat(Awaited.PHASE, self.step, phase)
