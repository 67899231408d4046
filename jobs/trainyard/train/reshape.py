"""A checkpoint of DeepSpeed's that was written by another number of processes.

Its optimizer's parts are cut for the old number. DeepSpeed's universal checkpoint has them by parameter, for any
number: the conversion is DeepSpeed's own, on this node's copy. (DDP has one part only, and FSDP2 reads slices.)
"""

import argparse
import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from trainyard.checkpoint.restore import WORLD_SIZE

_PART = re.compile(r"zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt\Z")


def loading(original: Callable[..., None]) -> Callable[..., None]:
    """Transformers' deepspeed_load_checkpoint, for any number of processes. A collective."""

    def load(engine: Any, path: str, **kwargs: Any) -> None:
        folder = Path(path)
        universal = _written_by(folder) not in (0, dist.get_world_size())
        engine._config.load_universal_checkpoint = universal
        if universal:
            if engine.local_rank == 0:
                _convert(folder)
            dist.barrier()
        original(engine, path, **kwargs)
        engine._config.load_universal_checkpoint = False

    return load


def _written_by(folder: Path) -> int:
    """How many processes have written a checkpoint; 0 when nothing tells."""
    if (told := folder / WORLD_SIZE).exists():
        return int(told.read_text(encoding="ascii"))
    found = (_PART.search(file.name) for file in folder.glob("global_step*/*_optim_states.pt"))
    return len({match[1] for match in found if match})


def _convert(folder: Path) -> None:
    source = next(each for each in folder.glob("global_step*") if not each.name.endswith("_universal"))
    target = source.with_name(f"{source.name}_universal")
    if (folder / "latest_universal").exists():
        return
    from deepspeed.checkpoint import ds_to_universal

    with contextlib.redirect_stdout(io.StringIO()):
        ds_to_universal.main(
            argparse.Namespace(
                input_folder=str(source), output_folder=str(target), num_extract_workers=1, num_merge_workers=1,
                keep_temp_folder=False, strict=True, inject_missing_state=True,
            )
        )  # fmt: skip
