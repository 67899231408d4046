"""Training processes without Ray: forked by a real warm process, as many as a test wants."""

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import manifest
from trainyard.checkpoint import attempts, catalogue, restore
from trainyard.checkpoint.restore import Seats
from trainyard.checkpoint.staging import Tickets
from trainyard.launch.causes import first_of
from trainyard.launch.group import run_process
from trainyard.launch.hang import HangWatch
from trainyard.launch.node import Node, Warm, open_node
from trainyard.launch.uploads import Uploads
from trainyard.plan.checks import check
from trainyard.plan.facts import gather
from trainyard.plan.plan import keep_last, plan
from trainyard.protocol.ending import Cause, Ending
from trainyard.spec.manifest import as_manifest, loads
from trainyard.spec.model import Resume
from trainyard.storage import layout
from trainyard.storage.store import open_store
from trainyard.train.work import Work


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A node with its warm process."""
    with open_node() as opened:
        warm = Warm(opened)
        yield opened
        warm.close()


@pytest.fixture(scope="session")
def fsdp_node() -> Iterator[Node]:
    """A node whose processes take CPUs for GPUs, so that FSDP2 can run on them."""
    with open_node() as opened:
        warm = Warm(opened, "tests.train.gloo_fsdp")
        yield opened
        warm.close()


@dataclass(frozen=True)
class Trained:
    """An attempt that has ended."""

    result: Ending
    run: Path
    log: str


Train = Callable[..., Trained]
Beside = Callable[[Callable[[], None], threading.Event], None]
"""Runs beside the training: gets what kills every rank and the uploader, and is told when training has ended."""


@pytest.fixture
def train(node: Node, tmp_path: Path) -> Train:
    """Train a spec in one attempt; again with the same name goes on from the newest checkpoint."""
    return trains_on(node, tmp_path)


@pytest.fixture
def train_fsdp(fsdp_node: Node, tmp_path: Path) -> Train:
    """The same with FSDP2 on CPUs."""
    train = trains_on(fsdp_node, tmp_path)

    def start(ranks: int = 1, name: str = "job", **changes: object) -> Trained:
        return train(ranks, name, **{**changes, "workers": {"count": ranks, "gpus": 1}, "strategy": {"fsdp": {}}})

    return start


def trains_on(node: Node, tmp_path: Path) -> Train:
    """What trains on a node."""

    def start(ranks: int = 1, name: str = "job", beside: Beside | None = None, **changes: object) -> Trained:
        arguments = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 2}
        spec: dict[str, object] = {"trainingArguments": arguments, "workers": {"count": ranks}, **changes}
        document = manifest(**spec)
        if "script" in changes:
            changes.pop("strategy", None)
            document["spec"] = {"workers": {"count": ranks}, **changes}
        loaded = loads(json.dumps(document))
        assert check(loaded.job.spec) == []
        # What the plan would refuse, the training process must refuse, too.
        made = plan(loaded.job, replace(gather(loaded.job.spec), problem=None))
        store = open_store(str(tmp_path / name))
        store.put(layout.RUN, b"{}")  # the driver's work
        known = attempts.list_attempts(store)
        committed = (
            () if loaded.job.spec.resume is Resume.NEVER else catalogue.committed(catalogue.list_checkpoints(store))
        )
        newest = next(iter(committed), None)
        attempt = attempts.claim(store, newest, ranks, catalogue.newest_attempt(known))
        assert attempt is not None
        restored = tmp_path / f"{name}-restored-{attempt.number}" / f"checkpoint-{newest.step if newest else 0}"
        staging = tmp_path / f"{name}-staging-{attempt.number}"
        own = Node(staging, Path(tempfile.mkdtemp(dir=node.sockets)))
        adopted = loaded.job.spec.resume_from if newest is None else None
        if adopted is not None:
            restore.adopt(Path(adopted), restored)
        batch = None
        if newest is not None:
            seats = Seats(range(ranks), ranks)
            batch = restore.bring(store, Tickets(staging / "none"), newest, restored, seats).global_batch_size
        work = Work(
            manifest=as_manifest(loaded.job), arguments=made.arguments, run_uri=store.uri, attempt=attempt.number,
            staging=str(staging), keep_last=keep_last(loaded.job.spec), strategy=made.strategy.value,
            tickets=str(own.tickets), bell=str(own.bell), buffers=str(own.buffers(attempt.number, in_memory=False)),
            resumed_id=str(newest) if newest else None, global_batch_size=batch,
            resume_folder=str(restored) if newest or adopted else None,
        )  # fmt: skip
        staging.mkdir(parents=True)
        uploads, watches = Uploads(own), [HangWatch(staging / "none", 0) for _ in range(ranks)]

        killed, ended = threading.Event(), threading.Event()

        def kill() -> None:
            killed.set()
            uploads.close(at_once=True)
            for watch in watches:
                if watch.pid is not None:
                    os.kill(watch.pid, signal.SIGKILL)

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(beside, kill, ended) if beside is not None else None
            try:
                result, log = _run(node, work, watches, kill)
            finally:
                ended.set()
                uploads.close()
            if other is not None:
                other.result()
        assert result is not None or killed.is_set(), log
        return Trained(result or Ending.fault(Cause.SIGNAL, "killed"), tmp_path / name, log)

    return start


def _run(node: Node, work: Work, watches: list[HangWatch], kill: Callable[[], None]) -> tuple[Ending | None, str]:
    """The result, of the rank that failed first if one did, unless rank 0 died without one; and the log of all ranks."""
    staging, ranks = Path(work.staging), len(watches)
    work.write(staging / "work.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def one(rank: int) -> Ending | int:
        env = {
            "RANK": rank,
            "WORLD_SIZE": ranks,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        request = {
            "work": str(staging / "work.json"), "log": str(staging / f"{rank}.log"),
            "env": {key: str(value) for key, value in env.items()},
        }  # fmt: skip
        return run_process(node, request, watches[rank])

    with ThreadPoolExecutor(ranks) as pool:
        try:
            ends = list(pool.map(one, range(ranks)))
        except BaseException:  # a test that takes too long ends here, and its processes with it
            kill()
            raise
    log = "\n".join((staging / f"{rank}.log").read_text() for rank in range(ranks))
    if not isinstance(ends[0], Ending):
        return None, log
    results = [
        end if isinstance(end, Ending) else Ending.fault(Cause.SIGNAL, f"rank {rank} ended with status {end}")
        for rank, end in enumerate(ends)
    ]
    failed = [each for each in results if each.outcome != "Complete"]
    return first_of(failed) if failed else results[0], log
