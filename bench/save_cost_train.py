"""What bench.save_cost trains, in each of its ways to save: a language model with random weights on random tokens.

save_cost_train.py MODE SAVES EVERY TIMES OUTPUT [TURNS]: writes the times of each step's begin and end as JSON.
TURNS: of ours, the steps after a save at which the uploader goes on and is stopped, as a list of pairs.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

GPU = torch.cuda.is_available()
MODEL = {"n_embd": 1024, "n_layer": 6, "n_head": 8, "vocab_size": 6144, "n_positions": 64}
"""83 M parameters: 1 GB of weights and AdamW's two moments in fp32."""
TOKENS, BATCH = 32, 1
if GPU:  # 168 M parameters: 2 GB
    MODEL = {"n_embd": 1024, "n_layer": 12, "n_head": 16, "vocab_size": 16384, "n_positions": 1024}
    TOKENS, BATCH = 1024, 16


class Times(TrainerCallback):
    """When steps begin and end."""

    def __init__(self):
        self.begins, self.ends, self.waited = [], [], []

    def watch(self, saving):
        """Ours also waits inside of a step: for what the optimizer may not change yet."""
        release = saving.release

        def timed():
            begun = time.monotonic()
            release()
            self.waited[-1] = time.monotonic() - begun

        saving.release = timed

    def on_step_begin(self, args, state, control, **kwargs):
        self.begins.append(time.monotonic())
        self.waited.append(0.0)

    def on_step_end(self, args, state, control, **kwargs):
        if GPU:
            torch.cuda.synchronize()  # a step ends when the device has made it
        self.ends.append(time.monotonic())


class Turns(TrainerCallback):
    """Lets our uploader work in turns, so that steps beside it have neighbours without it."""

    def __init__(self, tickets, every, turns):
        folder = str(tickets.folder)
        ours = (each for each in psutil.process_iter(["cmdline"]) if folder in (each.info["cmdline"] or ()))
        self.uploader, self.every = next(ours), every
        self.signals = dict.fromkeys((0, *(stop for _, stop in turns)), signal.SIGSTOP)
        self.signals |= {start: signal.SIGCONT for start, _ in turns}
        self.tickets, self.last, self.late = tickets, turns[-1][0], 0

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step % self.every
        # An upload that needs its last turn may need more, where nobody compares it with anything.
        self.late += step == self.last and bool(self.tickets.waiting())
        number = self.signals.get(step)
        if state.global_step == args.max_steps:
            number = signal.SIGCONT
        if number is not None:
            self.uploader.send_signal(number)


class Dcp(TrainerCallback):
    """The peer: torch.distributed.checkpoint.async_save, to disk, as its tutorial does it."""

    def __init__(self, kind, every, folder):
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

        self.kind = AsyncCheckpointerType.PROCESS if kind == "process" else AsyncCheckpointerType.THREAD
        self.every, self.folder, self.future = every, folder, None

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict

        if state.global_step % self.every:
            return
        if self.future is not None:
            self.future.result()
        weights, moments = get_state_dict(model, optimizer.optimizer)
        state_dict = {"model": weights, "optimizer": moments}
        path = f"{self.folder}/{state.global_step % 2}"
        self.future = dcp.async_save(state_dict, checkpoint_id=path, async_checkpointer_type=self.kind)

    def on_train_end(self, args, state, control, **kwargs):
        if self.future is not None:
            self.future.result()


def train(mode, saves, every, times_file, output, turns=()):
    """One run; `saves` saves, one every so many steps."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**MODEL))
    rows = [{"input_ids": (ids := torch.randint(0, MODEL["vocab_size"], (TOKENS,))), "labels": ids} for _ in range(64)]
    steps = saves * every + every // 2
    by_trainer = mode in ("ours", "disk", "memory", "ray")
    if mode.startswith("dcp"):
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29511")
        dist.init_process_group("cpu:gloo,cuda:nccl" if GPU else "gloo", rank=0, world_size=1)
    args = TrainingArguments(
        output, max_steps=steps, per_device_train_batch_size=BATCH, use_cpu=not GPU, bf16=GPU, report_to="none",
        disable_tqdm=True,
        save_strategy="steps" if by_trainer else "no", save_steps=every, logging_steps=1_000_000,
        save_total_limit=None if mode == "ours" else 1, dataloader_pin_memory=False,
    )  # fmt: skip
    times, in_turns = Times(), None
    callbacks = [times]
    if mode.startswith("dcp"):
        callbacks.append(Dcp(mode.removeprefix("dcp-"), every, output))
    trainer = Trainer(model, args, train_dataset=rows, callbacks=callbacks)
    if mode == "ray":
        from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer

        trainer.add_callback(RayTrainReportCallback())
        trainer = prepare_trainer(trainer)
    saving = next((each.saving for each in trainer.callback_handler.callbacks if hasattr(each, "saving")), None)
    if saving is not None:
        times.watch(saving)
        if turns:
            in_turns = Turns(saving.slots.tickets, every, turns)
            trainer.callback_handler.callbacks.insert(0, in_turns)  # it takes its time before a step has ended
    trainer.train()
    skipped = saving.totals.skipped if saving is not None else 0
    late = in_turns.late if in_turns is not None else 0
    document = {
        "begins": times.begins, "ends": times.ends, "waited": times.waited, "skipped": skipped, "late": late,
    }  # fmt: skip
    Path(times_file).write_text(json.dumps(document))


def ray_train(saves, every, times_file, output):
    """The stock way: Ray Train's TorchTrainer with RayTrainReportCallback, its storage on the sink, if there is one."""
    import pyarrow.fs
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    storage = {"storage_path": f"{output}-stock"}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        filesystem = pyarrow.fs.S3FileSystem(
            access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=endpoint, allow_bucket_creation=True, region="us-east-1",
        )  # fmt: skip
        storage = {"storage_path": "stock/run", "storage_filesystem": filesystem}
    folder = str(Path(__file__).parent.parent)
    threads = os.environ["OMP_NUM_THREADS"]
    ray.init(include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": folder, "OMP_NUM_THREADS": threads}})

    def work(_):
        from bench.save_cost_train import train

        torch.set_num_threads(int(threads))
        train("ray", saves, every, times_file, output)

    TorchTrainer(
        work,
        train_loop_config={},
        scaling_config=ray.train.ScalingConfig(num_workers=1, use_gpu=GPU),
        run_config=ray.train.RunConfig(**storage),
    ).fit()


if __name__ == "__main__":
    mode, saves, every, times_file, output = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6]
    if mode == "ray-stock":
        ray_train(saves, every, times_file, output)
    else:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        train(mode, saves, every, times_file, output, *map(json.loads, sys.argv[6:]))
