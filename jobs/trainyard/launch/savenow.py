"""A save that somebody asks for, of a run that goes on: on this machine, or in the pods of a job."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future

from trainyard.checkpoint.attempts import newest_number, read_end
from trainyard.checkpoint.catalogue import committed, list_checkpoints, read_manifest
from trainyard.cluster.kubectl import Kubectl, TimedOutError
from trainyard.errors import JobError, NotFoundError
from trainyard.launch.node import runner
from trainyard.protocol.ending import Ending
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store

_LOOK_SECONDS = 0.5
_AT_REST = ("Suspending", "Suspended", "Complete", "Failed", "Invalid")
"""States of a TrainerJob in which no pod of it will save."""


def ask_here(store: Store, timeout: float) -> CheckpointId:
    """Have the run of this machine save. Returns the checkpoint when it is committed.

    Raises NotFoundError when no process of this machine runs it, or it ends without the save; TimedOutError after so
    many seconds.
    """
    pid = runner(store.uri)
    if pid is None:
        fix = "start it with trainyard run, or give the job's name when it runs on a cluster"
        raise NotFoundError(f"{store.url()} is not being run by a process of this machine. Fix: {fix}")
    return saved(store, timeout, lambda: os.kill(pid, signal.SIGUSR2), lambda: runner(store.uri) != pid)


def ask_pod(store: Store, kubectl: Kubectl, job: str, timeout: float) -> CheckpointId:
    """Have a job on a cluster save: its first pod is asked, and its ranks agree with all others. Raises as ask_here."""
    ask = ("exec", f"pod/{job}-0", "--container=trainer", "--", "sh", "-c", "kill -USR2 1")
    return saved(store, timeout, lambda: kubectl.run(*ask), lambda: _rests(kubectl, job))


def _rests(kubectl: Kubectl, job: str) -> bool:
    """Whether nobody is to run a job any more: it is suspended or has ended, or there is no such job."""
    fields = "jsonpath={.spec.suspend} {.status.state}"
    words = kubectl.run("get", f"trainerjob/{job}", "--ignore-not-found", "--output", fields)
    suspended, _, state = words.partition(" ")
    return not words or suspended == "true" or state in _AT_REST


def saved(
    store: Store, timeout: float, ask: Callable[[], object], is_over: Callable[[], bool] = lambda: False
) -> CheckpointId:
    """Ask for a save; returns it when it is committed. `is_over`: whether nobody runs the run any more.

    Raises NotFoundError when the run has ended without it, TimedOutError after so many seconds.
    """
    outcome, over = Future[CheckpointId](), threading.Event()

    def follow() -> None:
        try:
            outcome.set_result(_follow(store, ask, over, is_over))
        except BaseException as error:  # noqa: BLE001 - who waits raises it
            outcome.set_exception(error)

    # Not in this thread: a storage that hangs lets a request wait for minutes.
    threading.Thread(target=follow, name="the save that was asked for", daemon=True).start()
    try:
        return outcome.result(timeout)
    except TimeoutError:
        if outcome.done():  # in this moment; or it is an error of its own
            return outcome.result()
        message = f"no new checkpoint of {store.url()} was committed within {timeout:.0f} s"
        raise TimedOutError(message) from None
    finally:
        over.set()


def _follow(
    store: Store, ask: Callable[[], object], over: threading.Event, is_over: Callable[[], bool]
) -> CheckpointId:
    """Ask for a save, and look until it is committed, nobody runs the run, or nobody waits any more."""
    seen = set(committed(list_checkpoints(store)))
    attempt = newest_number(store)
    if _end(store, attempt) is not None:
        attempt += 1  # it is about to be claimed
    if over.is_set():
        raise TimeoutError
    ask()
    while not over.is_set():
        has_stopped = is_over()  # asked before the look: what was committed until then is seen
        end = _end(store, attempt)
        for each in committed(list_checkpoints(store)):
            # A regular save that was under way already holds less than what was asked for.
            if each not in seen and _requested(store, each):
                return each
            seen.add(each)
        if end is not None and end.outcome in ("Complete", "UserError"):
            told = f"{end.outcome}, step {end.step}. {end.message}"
            raise NotFoundError(f"{store.url()} has ended without the save: {told}")
        if has_stopped:
            newest = max(seen, default=None)
            step = f"its newest checkpoint is {newest}" if newest is not None else "it has no checkpoint"
            raise NotFoundError(f"{store.url()} was stopped meanwhile, without the save that was asked for; {step}")
        attempt += end is not None  # the next one makes it: a node keeps what it was asked until there are steps
        over.wait(_LOOK_SECONDS)
    raise TimeoutError


def _end(store: Store, attempt: int) -> Ending | None:
    try:
        return read_end(store, attempt)
    except (NotFoundError, ValueError, TypeError):  # it goes on; or nobody can tell
        return None


def _requested(store: Store, identity: CheckpointId) -> bool:
    try:
        return read_manifest(store, identity).requested
    except (NotFoundError, JobError, ValueError):  # taken by retention since it was listed; of a later format; torn
        return False
