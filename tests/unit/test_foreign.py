"""What other libraries say: each of them says it here, and its meaning is asserted.

| library | how it is made to say it here |
|---|---|
| torch.distributed: rendezvous, port taken | a real process group of two ranks, of which one does not come |
| gloo: peer gone, time-out | a real group of which one rank dies, or sleeps |
| torch.utils.data: a loader's process dies | a real DataLoader whose worker kills itself |
| PyTorch's zip writer, ENOSPC | torch.save onto a full tmpfs (needs root) |
| transformers: no model for a configuration | an Auto class of another kind of model |
| obstore: never sent | tests/store/test_proxy.py, by a proxy that resets the connection |
| huggingface_hub, httpx, transformers, datasets | tests/unit/test_failures.py, against a real HTTP server |
| Ray: worker, node | tests/run/test_ray_words.py, against a real cluster of two raylets |
| NCCL | cannot be had without GPUs: it raises DistBackendError, a type of its own, and no words are read |
"""

import datetime as dt
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, ViTConfig

from tests.conftest import fill
from trainyard.protocol import foreign
from trainyard.protocol.ending import Cause
from trainyard.train.failures import cause_of


@pytest.mark.parametrize(
    ("trouble", "ranks", "cause"),
    [
        ("comes alone", 1, Cause.RENDEZVOUS),
        ("port taken", 1, Cause.RENDEZVOUS),
        ("dies", 2, Cause.PEER),
        ("is slow", 2, Cause.PEER),
    ],
)
def test_torch_says_that_ranks_are_missing(trouble: str, ranks: int, cause: Cause) -> None:
    port, fork = free_port(), multiprocessing.get_context("fork")  # torch is imported once
    read, write = fork.Pipe(duplex=False)
    started = [fork.Process(target=meet, args=(trouble, rank, port, write)) for rank in range(ranks)]
    for process in started:
        process.start()
    try:
        assert read.poll(60)
        met, words = read.recv()
        assert met is cause, words
    finally:
        for process in started:
            process.kill()
            process.join()


def meet(trouble: str, rank: int, port: int, write: Connection) -> None:
    """In a process of its own: meet the trouble as one of two ranks. Rank 0 sends what failed, and the words."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    try:
        if trouble == "port taken":
            taken = socket.create_server(("127.0.0.1", port))
            assert taken.getsockname()
        dist.init_process_group("gloo", timeout=dt.timedelta(seconds=3))
        if rank == 1 and trouble == "dies":
            os._exit(9)
        if rank == 1:
            time.sleep(60)  # longer than the time-out of the other, until it is ended
        dist.all_reduce(torch.ones(1000))
        dist.all_reduce(torch.ones(1000))
    except Exception as error:  # noqa: BLE001 - what it is, is what the test asks
        write.send((cause_of(error), str(error)))
    finally:
        os._exit(0)


class Dying(Dataset[int]):
    """Rows of which the third kills the process that reads it."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 2 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2:
            os._exit(3)
        return index


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_torch_says_that_a_loader_died(how: str) -> None:
    # In a process of its own: torch leaves a handler of SIGCHLD that raises at any time.
    fork = multiprocessing.get_context("fork")
    read, write = fork.Pipe(duplex=False)
    process = fork.Process(target=load, args=(how, write))
    process.start()
    try:
        assert read.poll(60)
        met, words = read.recv()
        assert met is Cause.SIGNAL, words
    finally:
        process.kill()
        process.join()


def load(how: str, write: Connection) -> None:
    try:
        list(DataLoader(Dying(how), num_workers=1, collate_fn=list))
    except Exception as error:  # noqa: BLE001 - what it is, is what the test asks
        write.send((cause_of(error), str(error)))
    finally:
        os._exit(0)


def test_torch_says_that_a_disk_is_full(small_disk: Path) -> None:
    filled = fill(small_disk)
    with pytest.raises((RuntimeError, OSError)) as raised:
        torch.save(torch.ones(1_000_000), small_disk / "weights.pt")
    filled.unlink()
    words = str(raised.value)
    assert foreign.is_write_failed(words) or foreign.is_disk_full(words)


def test_transformers_says_that_a_model_has_no_such_head() -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        AutoModelForCausalLM.from_config(ViTConfig())
    assert foreign.is_model_without_head(str(raised.value))


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
