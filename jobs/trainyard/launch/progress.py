"""What a person sees of a run: a bar on a terminal, plain lines elsewhere. Everything goes to stderr."""

import math
import time
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

_PLAIN_INTERVAL = 5.0


class Display(Protocol):
    """Something that shows events."""

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""

    def close(self) -> None:
        """Give the terminal back."""


class _Numbers:
    """The latest of each number, as words."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, event: dict[str, Any]) -> None:
        self.values |= {name: value for name, value in event.items() if isinstance(value, int | float)}
        if "loss" in event and event["loss"] is None:  # JSON has neither NaN nor infinity
            self.values["loss"] = math.nan
        if event["event"] in ("train", "step") and "eta_seconds" not in event:
            self.values.pop("eta_seconds", None)

    def eta(self) -> str:
        """Time left, as H:MM:SS, by the step times of this attempt."""
        if "eta_seconds" not in self.values:
            return "ETA –"
        seconds = int(self.values["eta_seconds"])
        return f"ETA {seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"

    def words(self) -> str:
        parts = []
        if "loss" in self.values:
            parts.append(f"loss {self.values['loss']:.4g}")
        if "samples_per_second" in self.values:
            parts.append(f"{self.values['samples_per_second']:.4g} samples/s")
        if "tokens_per_second" in self.values:
            parts.append(f"{self.values['tokens_per_second']:,.0f} tokens/s")
        return "  ".join(parts)


def _is_step(event: dict[str, Any]) -> bool:
    """Whether an event reports a step: a step whose loss is logged is reported with it."""
    return event["event"] == "step" or (event["event"] == "log" and "loss" in event and "total" in event)


def evaluation(row: dict[str, Any]) -> str:
    """The metrics of an evaluation as words, without its times."""
    timing = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return "  ".join(
        f"{name.removeprefix('eval_')} {value:.4f}"
        for name, value in row.items()
        if name.startswith("eval_") and name not in timing and isinstance(value, int | float)
    )


def message(event: dict[str, Any]) -> str | None:
    """The lines for an event that is worth some, or None."""
    kind = event["event"]
    if kind == "attempt":
        resumed = event["resumed"]
        return f"attempt {event['attempt']}" + (f", going on from checkpoint {resumed}" if resumed else "")
    if kind == "set_aside":
        return f"checkpoint {event['id']} is corrupt and was set aside ({event['reason']})"
    if kind == "restart":
        return f"attempt failed: {event['message']}; {event['plan']}"
    if kind == "checkpoint":
        return f"checkpoint {event['id']} committed in {event['seconds']:.1f} s"
    if kind == "log" and "eval_loss" in event:
        return f"evaluation at step {event['step']}: {evaluation(event)}"
    if kind == "choices":
        return "\n".join(f"{name}: {value} ({reason})" for name, value, reason in event["rows"])
    if kind == "note":
        return str(event["text"])
    return None


class Terminal:
    """A bar that stays at the bottom while lines scroll above it."""

    def __init__(self, console: Console, name: str) -> None:
        self.numbers = _Numbers()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counter]}  {task.fields[numbers]}"),
            console=console,
            refresh_per_second=8,
        )
        self.name = name
        self.task: TaskID = self.progress.add_task(name, total=None, counter="starting", numbers="")
        self.progress.start()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if (line := message(event)) is not None:
            self.progress.console.print(line, highlight=False, markup=False)
        kind = event["event"]
        if kind in ("train", "step", "log"):
            self.numbers.update(event)
        if kind == "train" or _is_step(event):
            self._bar(event)
        elif kind in ("phase", "evaluating"):
            self.progress.update(self.task, counter=event.get("text", "evaluating"), numbers="")

    def close(self) -> None:
        """Give the terminal back."""
        self.progress.stop()

    def _bar(self, event: dict[str, Any]) -> None:
        step, total = event["step"], event["total"]
        words = f"{self.numbers.words()}  {self.numbers.eta()}"
        self.progress.update(self.task, completed=step, total=total, counter=f"{step}/{total}", numbers=words)


class Plain:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.numbers = _Numbers()
        self.next_line = 0.0

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind = event["event"]
        line = message(event)
        if kind == "phase":
            line = str(event["text"])
        elif kind in ("train", "step", "log"):
            self.numbers.update(event)
        if _is_step(event) and (event["step"] == event["total"] or time.monotonic() >= self.next_line):
            self.next_line = time.monotonic() + _PLAIN_INTERVAL
            step, total = event["step"], event["total"]
            done = f"step {step}/{total} ({step * 100 // max(1, total)} %)"
            line = f"{done}  {self.numbers.words()}  {self.numbers.eta()}"
        for each in (line or "").splitlines():
            self.console.print(f"{self.name}: {each}", highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to give back."""


class Silent:
    """Shows nothing."""

    def show(self, event: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing to give back."""


def plain_display(name: str, out: TextIO) -> Display:
    """Plain lines to a stream."""
    return Plain(Console(file=out, width=1000), name)


def open_display(name: str, quiet: bool = False) -> Display:
    """The display that fits what stderr is."""
    console = Console(stderr=True, quiet=quiet)
    return Terminal(console, name) if console.is_terminal and not quiet else Plain(console, name)
