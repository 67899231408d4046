"""Stage 4a: TrainingArguments, and what has to be in place around them for each strategy."""

import os
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from trainyard.errors import JobError
from trainyard.train.processor import first_line
from trainyard.train.work import Work


def make(work: Work) -> TrainingArguments:
    """The arguments of one process. Creates the process group when there is more than one. Raises JobError."""
    fields = dict(work.arguments)
    if "deepspeed" in fields:
        _prepare_deepspeed(on_cpu=bool(fields.get("use_cpu")))
    if work.job.spec.task == "image-classification":
        # Pixels are made when a row is read, so the columns they are made from must reach the collator's side.
        fields.setdefault("remove_unused_columns", False)
    fields.setdefault("run_name", work.job.name)
    alone = work.strategy == "ddp" and os.environ.get("WORLD_SIZE") == "1"
    # By its name accelerate would make a group of one, and DDP hold the gradients twice.
    local_rank = os.environ.pop("LOCAL_RANK", None) if alone else None
    try:
        args = TrainingArguments(output_dir=work.staging, disable_tqdm=True, **fields)
    except (ValueError, TypeError, ImportError) as error:
        raise JobError(f"spec.trainingArguments: {first_line(error)}") from error
    finally:
        if local_rank is not None:
            os.environ["LOCAL_RANK"] = local_rank
    if alone:
        args._n_gpu = min(1, args.n_gpu)  # else Trainer would spread a batch for each GPU that it sees over them
    return args


def global_batch_size(args: TrainingArguments) -> int:
    """Samples that one optimizer step sees, over all processes."""
    size: int = args.train_batch_size * args.gradient_accumulation_steps
    # accelerate deals a split batch out to the processes (plan.batch).
    return size if args.accelerator_config.split_batches else size * args.world_size


def metric_for_best(args: TrainingArguments) -> tuple[str, bool]:
    """The metric that rates a checkpoint, by its name in the logs, and whether more is better."""
    name = args.metric_for_best_model or "loss"
    full = name if name.startswith("eval_") else f"eval_{name}"
    greater = args.greater_is_better  # the plan's, or for a script what transformers takes the name for
    return full, greater if greater is not None else not full.endswith("loss")


def _prepare_deepspeed(on_cpu: bool) -> None:
    import deepspeed

    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Its shared-memory all-reduce is compiled at run time with g++ and ninja; gloo needs neither.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if "RANK" in os.environ:
        # ZeRO-3 shards a model while it is built, so the process group must be there before.
        deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", auto_mpi_discovery=False, verbose=False)


def staging_file(work: Work, name: str) -> Path:
    """A path in the attempt's staging folder."""
    folder = Path(work.staging)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def metrics_file(work: Work) -> Path:
    """Where rank 0 keeps metrics.jsonl on its node."""
    return staging_file(work, "metrics.jsonl")


def versions() -> dict[str, Any]:
    """Versions of what computed the result."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("trainyard", "torch", "transformers", "accelerate", "datasets", "deepspeed", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
