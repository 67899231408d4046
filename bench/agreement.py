"""What it costs a step that all ranks agree on saving and stopping: an asynchronous all-reduce of four flags.

    python -m bench.agreement [blocks]

Two processes train a small model with DistributedDataParallel on gloo. Blocks of steps with the callback and without
it take turns; the cost is the difference of their seconds a step.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import BIN, save, spread

STEPS = 100
"""In each block."""
_RANKS = 2


def train(blocks: int, file: Path) -> None:
    """As one of the ranks: write seconds a step of each block, with the callback and without."""
    import torch
    import torch.distributed as dist
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from trainyard.train.callbacks import AgreementCallback

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (torch.nn.Linear(512, 512), torch.nn.ReLU())]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer, rows = torch.optim.AdamW(model.parameters()), torch.randn(64, 512)
    args = TrainingArguments(str(file.parent), use_cpu=True, report_to="none")
    callback, state, control = AgreementCallback(), TrainerState(max_steps=1_000_000), TrainerControl()
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
        start = [
            str(BIN / "torchrun"),
            f"--nproc-per-node={_RANKS}",
            "--module",
            "bench.agreement",
            str(blocks),
            str(file),
        ]
        subprocess.run(start, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = {name: [1000 * seconds for seconds in each] for name, each in json.loads(file.read_text()).items()}
    cost = statistics.median(found["with"]) - statistics.median(found["without"])
    print(f"Milliseconds a step at {_RANKS} ranks, median (range) of {blocks} blocks of {STEPS} steps")
    print(f"  without   {spread(found['without'])}")
    print(f"  with      {spread(found['with'])}")
    print(f"the agreement costs {cost:.3f} ms a step (goal ≤ 0.1)")
    save("agreement", found)


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
