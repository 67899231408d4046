"""How much memory model states need, before anything is loaded.

The formulas are those of DeepSpeed's estimators (deepspeed.runtime.zero.stage_1_and_2 and stage3), for AdamW: with
float32 weights 4 bytes of weights, 4 of gradients and 8 of optimizer state a parameter. DDP and FSDP2 hold all of them
in the weights' dtype. Activations come on top.
"""

import tempfile

from trainyard.plan.choice import Choice
from trainyard.plan.facts import Facts
from trainyard.plan.machine import MEMORY
from trainyard.plan.strategy import strategy_name
from trainyard.plan.weights import HALVES
from trainyard.spec.model import Spec

GIB = 1024**3


def model_states(spec: Spec, facts: Facts, world_size: int, mixed: bool, dtype: str) -> Choice[int | None]:
    """Bytes of weights, gradients and optimizer state that one process holds, with weights in a dtype."""
    parameters = facts.parameters
    if parameters is None:
        made = spec.model is not None and spec.model.from_config
        why = "the model is made from its configuration" if made else "the model's weights are not on this machine"
        return Choice(None, f"not known: {why}")
    shown = f"{parameters / 1e6:.1f} M parameters"
    size = 2 if dtype in HALVES else 4
    if strategy_name(spec) == "ddp":
        # Mixed precision under DDP keeps fp32 weights; autocast's copies are activations. DDP sends gradients from
        # buckets that hold them once more (torch.nn.parallel.DistributedDataParallel, gradient_as_bucket_view).
        held, twice = (4 * size, "") if world_size == 1 else (5 * size, " twice")
        what = f"weights, gradients{twice} and AdamW's two moments in {dtype}"
        return Choice(held * parameters, f"{shown} × {held} bytes: {what}")
    if strategy_name(spec) == "fsdp":
        held = 4 * size
        return Choice(held * parameters // world_size, f"{shown} × {held} bytes ÷ {world_size} processes")
    stage = spec.strategy.deepspeed.zero_stage if spec.strategy.deepspeed else 2
    weights = 2 if mixed else 4
    states = 18 if mixed else 16
    if stage == 3:
        largest = facts.largest_tensor or 0
        return Choice(
            4 * largest + states * parameters // world_size,
            f"{shown} × {states} bytes ÷ {world_size} processes, and the largest layer gathered",
        )
    gradients = 4 if stage == 1 else 0
    split = states - weights - gradients
    return Choice(
        (weights + gradients) * parameters + split * parameters // world_size,
        f"{shown} × ({weights + gradients} bytes whole + {split} ÷ {world_size} processes)",
    )


def verdict(spec: Spec, facts: Facts, states: Choice[int | None], world_size: int) -> str | None:
    """A warning when the processes of this machine will not fit into its memory; None when they may."""
    if states.value is None or facts.memory_bytes is None or spec.workers.gpus:
        return None
    needed = states.value * world_size
    if needed <= facts.memory_bytes:
        return None
    return (
        f"model states need {needed / GIB:.1f} GiB on this machine and {facts.memory_bytes / GIB:.1f} GiB are free; "
        "use fewer processes, a smaller model or a higher zeroStage"
    )


_STATE_BYTES = 12
"""Bytes a parameter in a checkpoint: weights and AdamW's two moments in fp32."""
_SLOTS = 2
_SHARE = 4


def staging(spec: Spec, facts: Facts, world_size: int | None) -> Choice[str]:
    """Where a worker keeps the checkpoint that is being uploaded, and the one that is being filled."""
    asked = spec.checkpoint.staging
    if asked == "Disk":
        return Choice("Disk", "checkpoint.staging")
    needed = _staged_bytes(spec, facts, world_size)
    if needed is None:
        return Choice(asked if asked == "Memory" else "Disk", "the size of a checkpoint is not known")
    shown = f"{_SLOTS} checkpoints are {_gib(needed)} on a worker"
    free = facts.memory_bytes
    if asked == "Memory":
        return Choice("Memory", f"checkpoint.staging; {shown}")
    if free is None:
        return Choice("Disk", f"{shown}, and the free memory is not known")
    room = facts.shared_memory_bytes
    if room is not None and needed > room:
        return Choice("Disk", f"{shown}, more than the {_gib(room)} of {MEMORY}")
    fits = needed * _SHARE <= free
    reason = f"{shown}, {'less' if fits else 'more'} than a quarter of the {_gib(free)} of memory that are free"
    return Choice("Memory" if fits else "Disk", reason)


def staging_problem(spec: Spec, facts: Facts, world_size: int) -> str | None:
    """Why staging in memory, which was asked for, cannot work; None when it can."""
    needed = _staged_bytes(spec, facts, world_size)
    if spec.checkpoint.staging != "Memory" or needed is None:
        return None
    free, room = facts.memory_bytes, facts.shared_memory_bytes
    if free is not None and needed > free:
        return f"{_SLOTS} checkpoints need {_gib(needed)} and {_gib(free)} of memory are free; write Auto or Disk"
    if room is not None and needed > room:
        return f"{_SLOTS} checkpoints need {_gib(needed)} and {MEMORY} holds {_gib(room)}; write Auto or Disk"
    return None


def staging_warning(spec: Spec, facts: Facts, world_size: int) -> str | None:
    """A warning when the disk that is staged on has no room for a checkpoint; None when it may have.

    Not refused: there may be room until the first save, and what optimizers other than AdamW keep is less.
    """
    needed, free = _staged_bytes(spec, facts, world_size), facts.free_disk_bytes
    if needed is None or free is None or staging(spec, facts, world_size).value == "Memory":
        return None
    one = needed // _SLOTS
    if one <= free:
        return None
    where = f"the disk of {tempfile.gettempdir()}"
    return f"a checkpoint is about {_gib(one)} and {_gib(free)} are free on {where}; make room, or set TMPDIR"


def _staged_bytes(spec: Spec, facts: Facts, world_size: int | None) -> int | None:
    if facts.parameters is None or world_size is None:
        return None
    whole = _STATE_BYTES * facts.parameters
    if strategy_name(spec) == "ddp":
        return _SLOTS * whole  # on the worker of rank 0
    return _SLOTS * (whole // spec.workers.count + 4 * facts.parameters)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
