"""What it costs a step that all ranks agree on saving and stopping: an asynchronous all-reduce of a few numbers.

    python -m bench.agreement [blocks]

Two processes train a small model with DistributedDataParallel on gloo. Blocks of steps without the callback and with it
take turns; the cost is the difference of two neighbours' seconds a step. With it a rank also looks whether it has a
free slot to stage in, as in a job.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.common import BIN, save, spread, timed

STEPS = 100
"""In each block."""
_RANKS = 2


def train(blocks: int, file: Path) -> None:
    """As one of the ranks: write seconds a step of each block, with the callback and without."""
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
    found: dict[str, list[float]] = {"without": [], "with": []}
    for block in range(-2, 2 * blocks):  # the first two warm up
        name = ("without", "with")[block % 2]
        dist.barrier()
        start = time.perf_counter()
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(rows).square().mean().backward()
            optimizer.step()
            if name == "with":
                state.global_step += 1
                callback.on_step_end(args, state, control)
        if block >= 0:
            found[name].append((time.perf_counter() - start) / STEPS)
    callback.on_train_end(args, state, control)
    if dist.get_rank() == 0:
        file.write_text(json.dumps(found))
    dist.destroy_process_group()


def main(blocks: int = 30) -> None:
    """Print the table and save the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        command = [str(BIN / "torchrun"), f"--nproc-per-node={_RANKS}", "--module", "bench.agreement"]
        timed([*command, str(blocks), str(file)], Path(folder) / "log")
        found = {name: [1000 * seconds for seconds in each] for name, each in json.loads(file.read_text()).items()}
    costs = [with_it - without for without, with_it in zip(found["without"], found["with"], strict=True)]
    print(f"Milliseconds a step at {_RANKS} ranks, median (range) of {blocks} blocks of {STEPS} steps")
    print(f"  without   {spread(found['without'])}")
    print(f"  with      {spread(found['with'])}")
    print(f"  difference of neighbours {spread(costs)} (goal: median ≤ 0.1)")
    save("agreement", found)


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
