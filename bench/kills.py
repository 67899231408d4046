"""A hundred kills in the middle of a save, seeded, and what goes on from them: ours beside plain Trainer's auto-resume.

    python -m bench.kills [kills]

One script with a plain Trainer (tests/train/plain_script.py) on two processes, in turn with each strategy. A kill is
SIGKILL to every rank (and to our uploader) when a seeded share of the bytes of a seeded save lies where it goes: ours
in the store's folder, Trainer's in its output folder. Then the run is started again as a user would: `trainyard run`
takes the newest committed checkpoint, the peer what transformers' get_last_checkpoint finds. The same loss at the last
step as the unbroken run's means to 1e-6. Of every four starts one is on one process instead of two: it must read the
same rows at every step as the unbroken run.
"""

import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from bench.common import save
from tests.conftest import folder_bytes, losses
from tests.train.conftest import trains_on
from trainyard.checkpoint import attempts, catalogue
from trainyard.launch.node import Node, Warm, open_node
from trainyard.storage.store import open_store

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")
STEPS, EVERY, RANKS = 9, 3, 2
_ROWS = 8
"""Rows of a step, over all ranks."""
SCRIPT = Path(__file__).parent.parent / "tests/train/plain_script.py"
_HIT = (2 * EVERY, 3 * EVERY)
"""Saves in which a kill may fall: before the first there is nothing to go on from."""
_TOLERANCE = 1e-6
_SEED = 20260801


class Kill:
    """Waits until a share of a checkpoint's bytes lies below a folder, and kills."""

    def __init__(self, folders: Callable[[int], list[Path]], whole: dict[int, float], rng: random.Random) -> None:
        self._step = rng.choice(_HIT)
        self._folders, self._bytes = folders, rng.random() * whole[self._step]
        self.struck = False

    def __call__(self, kill: Callable[[], None], ended: threading.Event) -> None:
        """Look until it is time, or training has ended."""
        while not ended.is_set():
            if (folders := self._folders(self._step)) and sum(map(folder_bytes, folders)) >= self._bytes:
                kill()
                self.struck = True
                return


def make_inputs(folder: Path) -> None:
    """A GPT-2 of 3 M parameters with random weights: a checkpoint of 40 MB takes long enough to be hit."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=64, bos_token_id=0, eos_token_id=0, n_positions=64, n_embd=256, n_layer=4, n_head=4)
    ).save_pretrained(folder / "gpt2")


class Ours:
    """The script under trainyard, without Ray: a warm process forks the ranks."""

    def __init__(self, node: Node, strategy: str, folder: Path) -> None:
        self.strategy, self.folder = strategy, folder
        self.train = trains_on(node, folder)

    def run(self, name: str, strike: Kill | None = None, ranks: int = RANKS) -> None:
        """An attempt; with a kill, one that may end in it."""
        script = {"path": str(SCRIPT), "args": _arguments(self.folder, name, self.strategy)}
        gpus = {"gpus": 1} if self.strategy == "fsdp" else {}
        done = self.train(ranks, name, beside=strike, script=script, workers={"count": ranks, **gpus})
        if strike is None and done.result.outcome != "Complete":
            raise RuntimeError(done.result.message)

    def rows(self, name: str) -> Path:
        """Where the script wrote which rows it read."""
        return self.folder / f"{name}-out-rows"

    def folders(self, name: str, step: int) -> list[Path]:
        """Where a checkpoint of a run goes."""
        return list((self.folder / name / "checkpoints").glob(f"{step:08d}-*"))

    def resumes_from(self, name: str) -> int:
        """The newest committed step."""
        store = open_store(str(self.folder / name))
        return max((found.step for found in catalogue.committed(catalogue.list_checkpoints(store))), default=0)

    def last(self, name: str) -> tuple[int, float]:
        """The step that the newest attempt went on from, and the loss of the last step."""
        newest = max(attempts.list_attempts(open_store(str(self.folder / name))), key=lambda each: each.number)
        return newest.resumed_from.step if newest.resumed_from else 0, losses(self.folder / name)[STEPS]


class Peer:
    """The script under plain Trainer, its ranks forked by a warm process of their own."""

    def __init__(self, strategy: str, folder: Path) -> None:
        self.strategy, self.folder = strategy, folder
        command = [sys.executable, "-m", "bench.kills_peer"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.went_on: dict[str, int] = {}

    def run(self, name: str, strike: Kill | None = None, ranks: int = RANKS) -> None:
        """A run of the script. Raises RuntimeError when it fails."""
        output = self.folder / f"{name}-peer"
        output.mkdir(exist_ok=True)
        newest = get_last_checkpoint(output)
        self.went_on[name] = int(newest.rpartition("-")[2]) if newest else 0
        arguments = [*_arguments(self.folder, name, self.strategy, "-peer"), *([newest] if newest else [])]
        log = str(self.folder / f"{name}-peer.log")
        pids = self._ask({"argv": [str(SCRIPT), *arguments], "log": log, "ranks": ranks})["pids"]
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            if strike is not None:
                pool.submit(strike, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids], ended)
            codes = self._ask(None)["codes"]
            ended.set()
        if strike is None and any(codes):
            raise RuntimeError((self.folder / f"{name}-peer.log").read_text().strip().splitlines()[-1])

    def rows(self, name: str) -> Path:
        """Where the script wrote which rows it read."""
        return self.folder / f"{name}-peer-rows"

    def folders(self, name: str, step: int) -> list[Path]:
        """Where a checkpoint of a run goes."""
        return list((self.folder / f"{name}-peer").glob(f"checkpoint-{step}"))

    def resumes_from(self, name: str) -> int:
        """The step of the newest folder: Trainer does not tell which are whole."""
        steps = [int(found.name.rpartition("-")[2]) for found in (self.folder / f"{name}-peer").glob("checkpoint-*")]
        return max(steps, default=0)

    def last(self, name: str) -> tuple[int, float]:
        """The step that the newest run went on from, and the loss of the last step."""
        text = (self.folder / f"{name}-peer.log").read_text()
        return self.went_on[name], json.loads(text.rpartition("LOSSES ")[2].splitlines()[0])[str(STEPS)]

    def _ask(self, request: dict[str, Any] | None) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if request is not None:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the warm process."""
        self.process.kill()
        self.process.wait()


def _arguments(folder: Path, name: str, strategy: str, suffix: str = "-out") -> list[str]:
    return [str(folder / "inputs"), str(folder / f"{name}{suffix}"), str(STEPS), strategy]


def rows_read(folder: Path, ranks: int, after: int = 0) -> dict[int, list[int]]:
    """The rows of each step after one, as so many ranks read them. A rank reads a batch ahead."""
    read = [[int(row) for row in (folder / f"{ranks}-{rank}").read_text().split()] for rank in range(ranks)]
    share = _ROWS // ranks
    return {
        after + 1 + at: sorted(row for each in read for row in each[at * share : (at + 1) * share])
        for at in range(STEPS - after)
    }


@dataclass(frozen=True)
class Unbroken:
    """What a run that nobody killed has shown."""

    bytes: dict[int, float]
    """Of each checkpoint."""
    loss: float
    rows: dict[int, list[int]]


def kill_and_resume(side: Ours | Peer, name: str, seed: int, whole: Unbroken, ranks: int) -> str:
    """One kill, a start on so many ranks, and what came of it, in words."""
    strike = Kill(functools.partial(side.folders, name), whole.bytes, random.Random(seed))
    side.run(name, strike)
    if not strike.struck:
        return "not hit"
    committed = side.resumes_from(name)
    try:
        side.run(name, ranks=ranks)
    except RuntimeError as error:
        return f"failed: {re.sub(r'/[^ ]*/', '', str(error))[:90]}"  # the temporary folder left out
    resumed, loss = side.last(name)
    if resumed != committed:
        return f"went on from {resumed} instead of {committed}"
    if ranks == RANKS or resumed == STEPS:
        return "same loss" if abs(loss - whole.loss) <= _TOLERANCE else "another loss"
    read = rows_read(side.rows(name), ranks, resumed)
    same = all(read[step] == whole.rows[step] for step in read)
    return "same rows on another number of ranks" if same else "other rows"


def main(kills: int = 100) -> None:
    """Print what came of each kill, by side, and save it."""
    found: dict[str, Counter[str]] = {"ours": Counter(), "Trainer": Counter()}
    rows = []
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary, open_node() as node:
        folder = Path(temporary)
        make_inputs(folder / "inputs")
        for index, strategy in enumerate(STRATEGIES):
            warm = Warm(node, *(["tests.train.gloo_fsdp"] if strategy == "fsdp" else []))
            peer = Peer(strategy, folder)
            try:
                sides: dict[str, Ours | Peer] = {"ours": Ours(node, strategy, folder), "Trainer": peer}
                for name, side in sides.items():
                    side.run(first := f"{strategy}-whole")
                    whole = Unbroken(
                        {step: float(sum(map(folder_bytes, side.folders(first, step)))) for step in _HIT},
                        side.last(first)[1], rows_read(side.rows(first), RANKS),
                    )  # fmt: skip
                    for turn, number in enumerate(range(index, kills, len(STRATEGIES))):
                        ranks = RANKS if turn % 4 < 3 else 1
                        told = kill_and_resume(side, f"{strategy}-{number}", _SEED + number, whole, ranks)
                        found[name][told] += 1
                        rows.append({"kill": number, "strategy": strategy, "side": name, "end": told})
                        print(f"  {strategy}, kill {number}: {name}: {told}", file=sys.stderr, flush=True)
                        save("kills", rows)
                        for each in folder.glob(f"{strategy}-{number}*"):
                            shutil.rmtree(each) if each.is_dir() else each.unlink()
            finally:
                peer.close()
                warm.close()
                node.warm_socket.unlink()
    for name, ends in found.items():
        print(f"{name}: " + ", ".join(f"{count} {end}" for end, count in ends.most_common()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
