"""How Ray's own start is given the time that a busy machine needs.

Ray waits thirty seconds for its raylet, a number that no variable changes, and then gives up with words about an
overloaded GCS; on cores that others keep busy a raylet needs minutes. What is waited for here has an end all the same:
a process of Ray that has died ends the wait at once, and its last line says why.
"""

import contextlib
import functools
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from trainyard.errors import ExitCode, TrainyardError

SECONDS = 300.0
"""For one try of a start. The next try gets twice as long."""
TRIES = 2
PROCESSES = ("gcs_server", "raylet")
"""Ray's processes without which its others end."""
_LISTEN_PORT = "dashboard_agent_listen_port"
_AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", _LISTEN_PORT)
"""Settings of a raylet's start: where the processes that it starts will listen."""
_OF_RAY = "/ray/_private/"
"""In the command line of Ray's other processes."""
_LOOK_AGAIN_SECONDS, _LOOK_MS = 0.2, 500
_LOGS = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out")
COLOUR = re.compile("\x1b\\[[0-9;]*m")
"""A colour in a terminal's text."""
_PREFIX = re.compile(r"^(\[[^\]]*\] ?)+(\([^)]*\) ?)*")
"""Time, level and process, with which each line of Ray's logs begins."""
_ERROR = re.compile(r"^\[\S+ \S+ [EFC] ")
"""How a line of Ray's logs begins that tells an error, or the check that ended the process."""
_LINE = 300


class RayStartError(TrainyardError):
    """Ray did not start: the machine may be too busy, and the same command may work later."""

    exit_code = ExitCode.RETRY


def start(
    begin: Callable[[], Any], folder: Path, note: Callable[[str], None], given_up: Callable[[], bool] = lambda: False
) -> None:
    """Have `begin` start Ray, and once more if that fails. Raises RayStartError with Ray's own last line.

    `folder`: where Ray keeps its session, of which the logs are read; `given_up`: whether nobody wants it any more.
    """
    for number in range(1, TRIES + 1):
        before = set(psutil.Process().children())
        try:
            with patience(SECONDS * 2 ** (number - 1), given_up):
                begin()
            return
        except Exception as error:  # Ray raises bare Exception, and much else; the last try raises it again
            words = last_words(folder) or str(error).strip().rpartition("\n")[2][:_LINE]
            end_processes(before)
            if number == TRIES or given_up():
                busy = f"load {psutil.getloadavg()[0]:.0f} on {psutil.cpu_count()} cores"
                raise RayStartError(
                    f"Ray did not start on this machine in {TRIES} tries ({busy}). Fix: run the same command again "
                    f"when less runs here. Ray's last line: {words}"
                ) from error
            note(f"Ray did not start ({words}); it is tried once more, with more time")


@contextlib.contextmanager
def patience(seconds: float, given_up: Callable[[], bool]) -> Iterator[None]:
    """A context in which Ray waits `seconds` for its GCS and its raylet, which it starts in this process."""
    node, services = _ray_modules()
    before = services.get_node, node.wait_for_persisted_port, services.start_raylet
    be_patient(seconds, given_up)
    try:
        yield
    finally:
        services.get_node, node.wait_for_persisted_port, services.start_raylet = before


def be_patient(seconds: float, given_up: Callable[[], bool] = lambda: False) -> None:
    """Have Ray wait `seconds` for its GCS and its raylet from now on, in this process."""
    node, services = _ray_modules()
    get_node, wait_for_port = services.get_node, node.wait_for_persisted_port

    def wait_for_node(gcs_address: str, node_id: str) -> Any:
        return _until_there(lambda: get_node(gcs_address, node_id), seconds, given_up)

    def wait_for_file(folder: str, node_id: str, name: str, timeout_ms: int) -> Any:
        if not timeout_ms:
            return wait_for_port(folder, node_id, name, timeout_ms=0)
        wait = functools.partial(wait_for_port, folder, node_id, name, timeout_ms=_LOOK_MS)
        return _until_there(wait, seconds, given_up)

    services.get_node, node.wait_for_persisted_port = wait_for_node, wait_for_file
    services.start_raylet = functools.partial(_start_raylet, services.start_raylet)


def _start_raylet(start_raylet: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Start a raylet that knows the ports of its agents, and return what Ray's own start returns.

    The agents would choose them, and the raylet ends when they have not within some seconds that nothing changes.
    """
    _, services = _ray_modules()
    settings.update(zip(_AGENT_PORTS, _free_ports(len(_AGENT_PORTS)), strict=True))
    start_process = services.start_ray_process

    def start_ray_process(command: list[str], *rest: Any, **more: Any) -> Any:
        # Ray hands this one to the agent and not to the raylet.
        port = f"--{_LISTEN_PORT}={settings[_LISTEN_PORT]}"
        return start_process([*command, port], *rest, **more)

    services.start_ray_process = start_ray_process
    try:
        return start_raylet(*arguments, **settings)
    finally:
        services.start_ray_process = start_process


def _free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    with contextlib.ExitStack() as sockets:
        held = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in held]


def _ray_modules() -> tuple[Any, Any]:
    """Where Ray starts its processes: what is replaced there is no part of its interface."""
    from ray._private import node, services

    return node, services


def _until_there(look: Callable[[], Any], seconds: float, given_up: Callable[[], bool]) -> Any:
    """What Ray's look returns, as soon as it does. Raises its last error when time is over, Ray dead or unwanted."""
    until = time.monotonic() + seconds
    while True:
        try:
            return look()
        except RuntimeError:  # Ray's word for what is not there yet
            if time.monotonic() > until or is_dead() or given_up():
                raise
        time.sleep(_LOOK_AGAIN_SECONDS)


def is_dead() -> bool:
    """Whether a process of Ray that this process has started has died."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name() in PROCESSES and child.status() == psutil.STATUS_ZOMBIE:
                return True
    return False


def end_processes(before: set[psutil.Process]) -> None:
    """Kill what Ray has started since, of which a second try must find nothing. `before`: what there was already."""
    import ray

    with contextlib.suppress(Exception):  # it may not even have begun
        ray.shutdown()
    ended: list[psutil.Process] = []
    for process in set(psutil.Process().children()) - before:
        with contextlib.suppress(psutil.Error):
            if process.name() in PROCESSES or _OF_RAY in " ".join(process.cmdline()):
                ended += [*process.children(recursive=True), process]
    for process in ended:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(ended, timeout=10)


def last_words(folder: Path) -> str:
    """The last line of Ray's own logs that says something, of errors before others; empty when there is none."""
    last = ""
    for name in _LOGS:
        for log in sorted(folder.glob(f"session_2*/logs/{name}"), reverse=True):
            with contextlib.suppress(OSError):
                # A line of Ray begins with its time and level. What follows a fatal one is the stack.
                lines = [COLOUR.sub("", line) for line in log.read_text(errors="replace").splitlines()]
                errors = [line for line in lines if _ERROR.match(line)]
                if errors:
                    return _PREFIX.sub("", errors[-1]).strip()[:_LINE]
                said = [line for line in lines if line.startswith("[")]
                last = last or (_PREFIX.sub("", said[-1]).strip()[:_LINE] if said else "")
    return last
