"""What test_agreement starts as each of two ranks: steps of no work, and signals to rank 1; to rank 0 a little later.

agreeing.py FILE: writes the steps at which this rank saves, stops, and knows that some rank has no free slot.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainyard.train.callbacks import AgreementCallback

ASKED, BUSY, TOLD = 40, 80, 140
"""Steps at which rank 1 is asked to save, has no free slot, and is asked to stop. Rank 0 is asked to save, too, when
they are agreeing on it already. Each is asked to stop once more before its last step is committed, and after it.
"""


def main(file: Path) -> None:
    dist.init_process_group("gloo")
    rank, step = dist.get_rank(), 0
    callback = AgreementCallback(lambda: rank == 1 and step >= BUSY)
    args = TrainingArguments(str(file.parent), use_cpu=True, report_to="none")
    state = TrainerState(max_steps=100_000)
    late = False
    found: dict[str, list[int]] = {"saved": [], "busy": [], "stopped": []}
    callback.on_train_begin(args, state, TrainerControl())
    while not found["stopped"]:
        step = state.global_step = state.global_step + 1
        dist.all_reduce(torch.zeros(1))  # a step's own collective, which must keep its place among the others
        for at, number in ((ASKED, signal.SIGUSR2), (TOLD, signal.SIGTERM)):
            if rank == 1 and step == at:
                os.kill(os.getpid(), number)
        if rank == 0 and step > ASKED and callback._pending is not None and not late:
            late = True
            os.kill(os.getpid(), signal.SIGUSR2)
        control = callback.on_step_end(args, state, TrainerControl())
        for name, holds in (("saved", control.should_save), ("stopped", control.should_training_stop)):
            found[name] += [step] if holds else []
        if callback.busy and not found["busy"]:
            found["busy"] = [step]
        if control.should_save:
            callback.on_save(args, state, control)
    callback.on_train_end(args, state, TrainerControl())
    os.kill(os.getpid(), signal.SIGTERM)  # of its own pod, say, while the last step is on its way
    callback.committed()
    os.kill(os.getpid(), signal.SIGTERM)
    file.write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
