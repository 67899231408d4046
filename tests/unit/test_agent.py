"""How a pod's agent ends."""

import threading
from pathlib import Path

import pytest

from tests.unit.jobs import job
from trainyard.checkpoint import attempts
from trainyard.checkpoint.manifest import FileEntry, Manifest
from trainyard.errors import ExitCode
from trainyard.launch import runfile
from trainyard.launch.agent import EXIT_CODES, Place, _Agent
from trainyard.protocol.ending import Ending
from trainyard.spec.manifest import as_manifest
from trainyard.storage import layout
from trainyard.storage.store import open_store


@pytest.mark.parametrize(
    ("complete", "ending", "code"),
    [
        (True, Ending.complete("the job is complete"), ExitCode.OK),
        (False, Ending.stopped("stopped when asked"), ExitCode.STOPPED),
    ],
    ids=["complete", "not complete"],
)
def test_worker_that_is_asked_to_go_ends_as_its_job(
    tmp_path: Path, complete: bool, ending: Ending, code: ExitCode
) -> None:
    agent, store = object.__new__(_Agent), open_store(str(tmp_path))
    agent.job, agent.stopping = job(), threading.Event()
    agent.place = Place("", 1, "nowhere.invalid", "127.0.0.1", store.uri, tmp_path / "log")
    runfile.write(store, as_manifest(agent.job), {}, {})
    attempts.claim(store, None, 2, after=0)
    if complete:
        store.put(f"{layout.FINAL}/config.json", b"{}")
        files = (FileEntry("config.json", 2, ""),)
        store.put(f"{layout.FINAL}/manifest.json", Manifest(10, 1, 2, "ddp", 8, files).to_json())
        attempts.end(store, 1, Ending.complete(store.url(layout.FINAL), 10))
    agent.stopping.set()
    assert agent._follow() == ending
    assert EXIT_CODES[ending.outcome] == code
