"""What the training process decides by itself: it collects the decisions and reports them once."""

from dataclasses import dataclass, field
from typing import Any

from trainyard.plan.choice import Choice
from trainyard.train.events import Events


@dataclass
class Choices:
    """The decisions of one training process, by name, in the order in which they were made.

    The plan decides what follows from the manifest alone. What follows from the rows, the processor and the model
    is decided here, and people see it in the same form: a value and its reason.
    """

    _rows: dict[str, Choice[Any]] = field(default_factory=dict)

    def add(self, name: str, choice: Choice[Any] | None) -> None:
        """Keep a decision under its name (`labels`, `dtype`). None says that there was nothing to decide."""
        if choice is not None:
            self._rows[name] = choice

    def notes(self) -> dict[str, str]:
        """The decisions as words, `value: reason` by name, in the form of plan.notes.notes()."""
        return {name: f"{choice.value}: {choice.reason}" for name, choice in self._rows.items()}

    def report(self, events: Events) -> None:
        """Send all decisions as one event. Call it once, before the first step."""
        if self._rows:
            rows = [[name, str(choice.value), choice.reason] for name, choice in self._rows.items()]
            events.send("choices", rows=rows)
