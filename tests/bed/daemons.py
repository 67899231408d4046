"""Long-running processes: started once, found again by another process, ended by their id."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from tests.bed.home import LOGS, STATE, BedError

_PIDS = STATE / "pids"
_TAIL = 20
_END_SECONDS = 10.0


def start(name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
    """Start a process unless it is running; its output goes to a log of its name."""
    if running(name):
        return
    _PIDS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    with log(name).open("ab") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**os.environ, **(env or {})},
            cwd="/", start_new_session=True,
        )  # fmt: skip
    _file(name).write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")


def running(name: str) -> psutil.Process | None:
    """The process of a name, or None; a process that only has inherited the id does not count."""
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        pid, created = _file(name).read_text().split()
        process = psutil.Process(int(pid))
        if process.create_time() == float(created) and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def end(*names: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End processes; those that take their time get SIGKILL."""
    processes = [process for name in names if (process := running(name))]
    kill(processes, number)
    kill(processes)
    for name in names:
        _file(name).unlink(missing_ok=True)


def kill(processes: Iterable[psutil.Process], number: signal.Signals = signal.SIGKILL) -> None:
    """Signal processes, and wait until they run no more; a zombie that its parent has not reaped is ended."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    deadline = time.monotonic() + _END_SECONDS
    while (left := [process for process in left if not _ended(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)  # they are not our children: the kernel tells us nothing


def _ended(process: psutil.Process) -> bool:
    try:
        # While threads are left, the first of them may be a zombie already and the ports are still taken.
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True


def names() -> list[str]:
    """Every process that was started and not ended, the newest first."""
    return [file.name for file in sorted(_PIDS.glob("*"), key=lambda file: file.stat().st_mtime, reverse=True)]


def log(name: str) -> Path:
    """The file with a process's output."""
    return LOGS / f"{name}.log"


def wait(name: str, what: str, ready: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a started process is ready. Raises BedError with its last lines when it is not, or has ended."""
    wait_ready(f"{what}: {name}", ready, lambda: running(name) is not None, log(name), seconds)


def wait_ready(
    what: str, ready: Callable[[], bool], alive: Callable[[], bool], output: Path, seconds: float = 60.0
) -> None:
    """Wait until something is ready. Raises BedError with the last lines of its output when it is not, or has ended."""
    deadline = time.monotonic() + seconds
    while not ready():
        ended = not alive()
        if ended or time.monotonic() > deadline:
            lines = output.read_text(errors="replace").splitlines()[-_TAIL:] if output.exists() else []
            why = "has ended" if ended else f"is not ready after {seconds:.0f} s"
            raise BedError("\n".join([f"{what} {why}; the end of {output}:", *(line[:300] for line in lines)]))
        time.sleep(0.1)  # servers tell nobody when they are ready: asking is the only way


def _file(name: str) -> Path:
    return _PIDS / name
