"""A machine that strangers keep busy: the load is made for real."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Tiny, tiny_manifest
from tests.run.conftest import Start
from trainyard.errors import ExitCode
from trainyard.launch import priority, raystart
from trainyard.launch.node import open_node

BUSY = "import time\nend = time.monotonic() + 590\nwhile time.monotonic() < end: pass"
LOAD = 20


@pytest.fixture
def load() -> Iterator[Callable[[], None]]:
    """Twenty processes that want a core each, in this test's own session, for ten minutes at most. Gives what ends them."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(LOAD)]

    def end() -> None:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()

    yield end
    end()


@pytest.mark.timeout(900)
def test_ray_starts_on_a_busy_machine_or_the_run_says_why_not(
    tiny: Tiny, tmp_path: Path, start: Start, load: Callable[[], None]
) -> None:
    arguments = {"max_steps": 2, "per_device_train_batch_size": 4, "save_steps": 2}
    running = start(tiny_manifest(tiny, tmp_path, trainingArguments=arguments, workers={"count": 1}))
    assert priority.is_busy()
    assert running.process.stderr
    running.lines += itertools.takewhile(lambda line: "attempt 1" not in line, running.process.stderr)
    load()  # Ray has started, or has not: how long strangers then make a training last is theirs
    code, _, err = running.end()
    assert "Traceback" not in err
    assert code in (ExitCode.OK, ExitCode.RETRY), err
    if code == ExitCode.OK:
        assert (tmp_path / "runs/job/final/manifest.json").exists()
    else:
        assert "Ray did not start on this machine" in err
        assert "Ray's last line: " in err


def test_ray_that_never_starts_ends_with_its_own_last_line(tiny: Tiny, tmp_path: Path, start: Start) -> None:
    """Each raylet is killed as soon as it is there."""
    file = tiny_manifest(tiny, tmp_path, trainingArguments={"max_steps": 2, "per_device_train_batch_size": 4})
    running = start(file)
    killed = set[psutil.Process]()
    command = psutil.Process(running.process.pid)
    while running.process.poll() is None and len(killed) < raystart.TRIES:
        with contextlib.suppress(psutil.Error):
            for child in command.children():
                if child.name() == "raylet" and child not in killed:
                    child.kill()
                    killed.add(child)
        time.sleep(0.01)
    code, _, err = running.end()
    assert code == ExitCode.RETRY, err
    assert "it is tried once more, with more time" in err
    assert "Ray did not start on this machine in 2 tries (load " in err
    assert err.rpartition("Ray's last line: ")[2].strip()
    assert "Traceback" not in err


def test_second_try_begins_without_the_first() -> None:
    """What the first has started is ended, and only that."""
    with open_node() as node:
        other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        notes: list[str] = []
        raylets: list[subprocess.Popen[bytes]] = []

        def begin() -> None:
            if not notes:
                raylets.append(subprocess.Popen(["bash", "-c", "exec -a raylet sleep 600"]))
                (node.folder / "session_2026/logs").mkdir(parents=True)
                line = "[2026-11-30 10:00:00,000 C 12 12] (raylet) agent_manager.cc:91: The agent did not register."
                (node.folder / "session_2026/logs/raylet.out").write_text(
                    f"first\n{line}\n*** StackTrace Information ***\n/raylet(+0x263cb7) [0x56]\n"
                )
                raise Exception("The current node timed out during startup.")  # noqa: TRY002 - as Ray does

        raystart.start(begin, node.folder, notes.append)
        assert notes == [
            "Ray did not start (agent_manager.cc:91: The agent did not register.); it is tried once more, with more time"
        ]
        assert other.poll() is None
        other.communicate()
        os.kill(raylets[0].pid, signal.SIGKILL)
        raylets[0].wait()
