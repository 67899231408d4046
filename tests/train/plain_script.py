"""What somebody writes without trainyard: a Trainer, torchrun, checkpoints on disk.

plain_script.py INPUTS OUTPUT STEPS STRATEGY [CHECKPOINT]: prints the loss of each step as JSON. Which rows a rank has
read, in order, is a file OUTPUT-rows/WORLD_SIZE-RANK.
"""

import json
import os
import sys

inputs, output, steps, strategy = sys.argv[1:5]
if strategy == "fsdp":  # on CPUs that are taken for GPUs, as tests/train/gloo_fsdp.py does
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)

from pathlib import Path  # noqa: E402

import torch.distributed as dist  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments, set_seed  # noqa: E402

DEEPSPEED = {
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}  # fmt: skip
FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "SHARDED_STATE_DICT"}
options = {
    "ddp": {"use_cpu": True},
    "fsdp": {"fsdp": "full_shard auto_wrap", "fsdp_config": FSDP},
    **{
        f"zero{stage}": {"use_cpu": True, "deepspeed": {**DEEPSPEED, "zero_optimization": {"stage": stage}}}
        for stage in (1, 2, 3)
    },
}[strategy]
if strategy.startswith("zero"):
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)

args = TrainingArguments(
    output, max_steps=int(steps), per_device_train_batch_size=4,
    gradient_accumulation_steps=2 // int(os.environ["WORLD_SIZE"]), logging_steps=1, save_steps=3, learning_rate=1e-3,
    lr_scheduler_type="constant", report_to="none", disable_tqdm=True, dataloader_pin_memory=False, **options,
)  # fmt: skip
set_seed(0)
model = GPT2LMHeadModel.from_pretrained(f"{inputs}/gpt2")
read = Path(f"{output}-rows/{args.world_size}-{args.process_index}")
read.parent.mkdir(parents=True, exist_ok=True)


class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, row):
        with read.open("a") as stream:
            stream.write(f"{row}\n")
        tokens = [(3 * row + at) % 16 for at in range(12)]
        return {"input_ids": tokens, "labels": tokens}


trainer = Trainer(model, args, train_dataset=Rows())
trainer.train(resume_from_checkpoint=sys.argv[5] if len(sys.argv) > 5 else None)
if args.process_index == 0:
    losses = {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}
    print("LOSSES", json.dumps(losses), flush=True)
dist.destroy_process_group()
