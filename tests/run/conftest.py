"""The whole command, with Ray and real processes."""

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.conftest import BIN
from tests.costs import COSTS, Cost


@dataclass
class Running:
    """A `trainyard run` that goes on while the test looks on."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, text: str) -> str:
        """Read stderr up to the line that holds a text, and return it; fail when the command ends before."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line
        pytest.fail(f"ended with {self.process.wait()} before {text!r}:\n{''.join(self.lines)}")

    def cost(self, fault: str, since: float, signs: tuple[str, ...]) -> None:
        """Note what a fault has cost: seconds until the first of its signs is told, and until there is a step again."""
        noticed = None
        for sign in signs:
            self.wait_for(sign)
            noticed = noticed or time.monotonic() - since
        self.wait_for("step ")
        COSTS.append(Cost(fault, noticed, time.monotonic() - since))

    def kill_all(self) -> None:
        """SIGKILL to the command and to everything that it started, as a power cut would."""
        top, tree = psutil.Process(self.process.pid), set[psutil.Process]()
        # Frozen first: a process that is killed while its parent still forks would leave an orphan behind.
        while found := {top, *top.children(recursive=True)} - tree:
            for each in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.suspend()
            tree |= found
        killed = sorted(tree, key=lambda each: each.pid)
        random.Random(0).shuffle(killed)
        for each in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(killed, timeout=20)
        self.process.communicate()

    def warm_process(self) -> psutil.Process | None:
        """The process that starts those that train."""
        children = psutil.Process(self.process.pid).children()
        return next((child for child in children if "trainyard.launch.warm" in " ".join(child.cmdline())), None)

    def training_processes(self) -> list[psutil.Process]:
        """The processes that train: children of the warm process."""
        warm = self.warm_process()
        return warm.children() if warm else []

    def ray_processes(self) -> set[str]:
        """What Ray's processes that run Python say they are."""
        names = [" ".join(child.cmdline()) for child in psutil.Process(self.process.pid).children(recursive=True)]
        return {name.removeprefix("ray::").split(".")[0].strip() for name in names if name.startswith("ray::")}

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, stdout, and all of stderr."""
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, "".join(self.lines) + err


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `trainyard run FILE …` in the test's folder; what is still there at the end is killed, and told if an ended command left it."""
    started: list[Running] = []
    mark = str(tmp_path)

    def run(file: Path, *arguments: str, env: dict[str, str] | None = None, within: Sequence[str] = ()) -> Running:
        process = subprocess.Popen(
            [*within, str(BIN / "trainyard"), "run", str(file), *arguments],
            cwd=tmp_path, env={**os.environ, "TRAINYARD_TEST": mark, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(Running(process))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            print("".join(each.lines))
            each.kill_all()
    assert not _left_behind(mark), "the command left processes behind"


def _left_behind(mark: str) -> list[psutil.Process]:
    """Processes, still running a moment after, whose environment has a test's mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TRAINYARD_TEST") == mark:
                found.append(process)
    return psutil.wait_procs(found, timeout=20)[1]
