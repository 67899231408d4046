"""A process that stands still: by its signs, and by what it uses while it gives none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainyard.launch.hang import HangWatch
from trainyard.launch.life import Life
from trainyard.train.heartbeat import Awaited, Beat, Heart, file, read


def test_hang_is_ten_median_steps_or_the_floor() -> None:
    watch = HangWatch(Path("nowhere"), floor=5.0, alone=False)
    assert not watch.look(None, now=0.0)
    assert not watch.look(Beat(Awaited.FIRST_STEP, 0, 0.0), now=600.0), "the first step may take long"
    assert watch.look(Beat(Awaited.STEP, 1, 0.0), now=6.0), "the first step is over"
    for step in range(1, 5):
        assert not watch.look(Beat(Awaited.STEP, step, 2.0 * step), now=2.0 * step)
    assert watch.limit() == 20.0
    assert not watch.look(Beat(Awaited.STEP, 4, 8.0), now=27.0)
    assert not watch.look(Beat(Awaited.OTHER, 4, 8.0), now=1000.0), "saving or evaluating is no step"
    assert watch.look(Beat(Awaited.OTHER, 4, 8.0), now=2000.0), "and has an end all the same"
    assert not watch.look(Beat(Awaited.NOTHING, 4, 8.0), now=9e9)
    assert watch.look(Beat(Awaited.STEP, 4, 8.0), now=29.0)


@pytest.mark.parametrize(
    ("awaited", "alone", "seconds"),
    [
        (Awaited.PHASE, True, 5.0),
        (Awaited.FIRST_STEP, True, 5.0),
        (Awaited.PHASE, False, 1800.0),
        (Awaited.FIRST_STEP, False, 1800.0),
    ],
    ids=["phase", "first step", "phase of several nodes", "first step of several nodes"],
)
def test_standing_still_before_a_step_is_a_hang(awaited: Awaited, alone: bool, seconds: float) -> None:
    watch = HangWatch(Path("nowhere"), floor=5.0, alone=alone)
    assert not watch.look(Beat(awaited, 0, 100.0), now=100.0 + seconds - 1)
    assert watch.look(Beat(awaited, 0, 100.0), now=100.0 + seconds + 1)


def test_clock_starts_again_at_each_phase_and_sign() -> None:
    watch = HangWatch(Path("nowhere"), floor=5.0)
    assert not watch.look(Beat(Awaited.PHASE, 0, 0.0, "reading the data"), now=4.0)
    assert not watch.look(Beat(Awaited.PHASE, 0, 4.0, "encoding the data"), now=8.0)
    assert not watch.look(Beat(Awaited.PHASE, 0, 4.0, "encoding the data"), now=4000.0, alive=3996.0)
    assert watch.look(Beat(Awaited.PHASE, 0, 4.0, "encoding the data"), now=4006.0, alive=4000.0)


def test_first_step_that_only_spins_has_an_end() -> None:
    watch = HangWatch(Path("nowhere"), floor=5.0)
    assert not watch.look(Beat(Awaited.FIRST_STEP, 0, 0.0), now=1799.0, alive=1798.0)
    assert watch.look(Beat(Awaited.FIRST_STEP, 0, 0.0), now=1801.0, alive=1800.0)


BUSY = "while True: pass"
STILL = "import signal; signal.pause()"
READS = "import time\nwhile True: open('/proc/self/maps').read(); open('/dev/zero','rb').read(65536); time.sleep(0.05)"
LOCKED = "import os, time\nwhile os.path.exists('/proc'): time.sleep(0.1)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


@pytest.mark.parametrize(
    ("code", "lives"),
    [(BUSY, True), (READS, True), (CHILD, True), (STILL, False), (LOCKED, False)],
    ids=["computes", "reads", "child computes", "stands still", "waits for a lock"],
)
def test_process_lives_while_it_computes_or_moves_bytes(tmp_path: Path, code: str, lives: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", code], process_group=0)
    try:
        until_started(process.pid, code)
        life, newest = Life(tmp_path / "alive", every=0.5), None
        start = time.monotonic()
        while newest is None and time.monotonic() - start < (20 if lives else 2.5):
            newest = life.look(process.pid, time.monotonic())
            time.sleep(0.1)
        assert (newest is not None) is lives
        assert Life(tmp_path / "alive", every=0.5).look(os.getpid(), time.monotonic()) == newest, "one speaks for all"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until_started(pid: int, code: str) -> None:
    """Python has begun: its start computes, too."""
    if code not in (STILL, LOCKED):
        return
    until = time.monotonic() + 20
    before = None
    while time.monotonic() < until:
        used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        if used == before:
            return
        before = used
        time.sleep(0.5)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands still before its first step; SIGUSR1 lets it write its stacks."""
    code = (
        "import faulthandler, signal, sys; faulthandler.register(signal.SIGUSR1); print('begun', flush=True)\n"
        "while True: signal.pause()"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_process_that_never_reaches_a_step_is_ended_with_its_phase(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    Heart(file(tmp_path, 0)).beat(Awaited.PHASE, 0, "loading the model")
    with HangWatch(file(tmp_path, 0), floor=1.0) as watch:
        watch.pid = sleeper.pid
        assert sleeper.wait(timeout=30) == -signal.SIGKILL
    assert watch.verdict.startswith("no sign of life for 1 s while loading the model")
    assert "line 2" in (tmp_path / "log").read_text(), "the stacks"


def test_process_that_never_gives_a_sign_is_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    with HangWatch(file(tmp_path, 0), floor=1.0) as watch:
        watch.pid = sleeper.pid
        assert sleeper.wait(timeout=30) == -signal.SIGKILL
    assert watch.verdict.startswith("no sign of life for 1 s while starting")


def test_wait_with_a_time_out_of_its_own_gives_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heart = Heart(file(tmp_path, 0))
    monkeypatch.setattr(Heart, "mine", heart)
    heart.beat(Awaited.PHASE, 0, "loading the model")
    first = read(file(tmp_path, 0))
    assert first is not None
    with Heart.waiting():
        until = time.monotonic() + 20
        while (now := read(file(tmp_path, 0))) == first:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert now is not None
    assert (now.awaited, now.phase) == (Awaited.PHASE, "loading the model")
