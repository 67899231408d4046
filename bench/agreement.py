"""What it costs a step that all ranks agree on saving and stopping: an asynchronous all-reduce of a few numbers.

    python -m bench.agreement [steps]

Two processes train a small model with DistributedDataParallel on gloo, and agree as often as a job does. An agreement
is started at a step's end and read at the next one's: the cost is what these two take more than those until the next
agreement, shared out among all of them. So neighbours are compared, and a machine that is slower a minute later does
not count. With it a rank also looks whether it has a free slot to stage in, as in a job.
"""

import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.common import BIN, save, spread, timed

_WARM_UP = 100
"""Steps that do not count."""
_FEW = 30
"""Agreements that say something together."""
_RANKS = 2
_SURE = 1.96
"""Standard errors to each side of a mean that hold the true one with 95 % certainty."""


def train(steps: int, file: Path) -> None:
    """As one of the ranks: write the times at which steps end, and which of them began an agreement."""
    import torch
    import torch.distributed as dist
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from trainyard.checkpoint.staging import Tickets
    from trainyard.train.callbacks import AgreementCallback
    from trainyard.train.slots import Slots

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (torch.nn.Linear(512, 512), torch.nn.ReLU())]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer, rows = torch.optim.AdamW(model.parameters()), torch.randn(64, 512)
    args = TrainingArguments(str(file.parent), use_cpu=True, report_to="none")
    slots = Slots(file.parent, file.parent, Tickets(file.parent / "tickets"), dist.get_rank())
    callback = AgreementCallback(lambda: not slots.free())
    state, control = TrainerState(max_steps=1_000_000), TrainerControl()
    callback.on_train_begin(args, state, control)
    ends, started = list[float](), list[bool]()
    for _ in range(steps):
        optimizer.zero_grad()
        model(rows).square().mean().backward()
        optimizer.step()
        state.global_step += 1
        callback.on_step_end(args, state, control)
        ends.append(time.perf_counter())
        started.append(callback._pending is not None)
    callback.on_train_end(args, state, control)
    if dist.get_rank() == 0:
        file.write_text(json.dumps({"ends": ends, "started": started}))
    dist.destroy_process_group()


def costs(ends: list[float], started: list[bool]) -> tuple[list[float], list[float]]:
    """Seconds that each agreement takes, and seconds of a step without one beside it."""
    took = [after - before for before, after in itertools.pairwise(ends)]
    begins = [index for index, begun in enumerate(started[1:]) if begun and index >= _WARM_UP]
    found, plain = list[float](), list[float]()
    for begin, next_one in itertools.pairwise(begins):
        if next_one - begin > 2:
            plain.append(statistics.mean(took[begin + 2 : next_one]))
            found.append(sum(took[begin : begin + 2]) - 2 * plain[-1])
    return found, plain


def main(steps: int = 10_000) -> None:
    """Print the figures and save the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        command = [str(BIN / "torchrun"), f"--nproc-per-node={_RANKS}", "--module", "bench.agreement"]
        timed([*command, str(steps), str(file)], Path(folder) / "log")
        times = json.loads(file.read_text())
    save("agreement", times)
    found, plain = ([1000 * seconds for seconds in each] for each in costs(**times))
    if len(found) < _FEW:
        sys.exit(f"{steps} steps hold {len(found)} agreements: too few to say what one costs")
    error = _SURE * statistics.stdev(found) / math.sqrt(len(found))
    mean, between = statistics.mean(found), (steps - _WARM_UP) / sum(times["started"][_WARM_UP:])
    print(f"Milliseconds at {_RANKS} ranks, {len(found)} agreements, one every {between:.1f} steps")
    print(f"  a step without one  {spread(plain)}, median (range)")
    print(f"  an agreement        {mean:.3g} ({mean - error:.3g} to {mean + error:.3g}), mean with 95 % certainty")
    low, high = (mean - error) / between, (mean + error) / between
    print(f"  of it a step        {mean / between:.3g} ({low:.3g} to {high:.3g}) (goal ≤ 0.1)")


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
