"""Folders of checkpoints that a script's Trainer has written under us, which hold no checkpoint.

The weights and the optimizer go into storage. What Trainer writes below its output_dir besides is small: a folder
`checkpoint-<step>` with trainer_state.json. Scripts look for such folders to resume from. While there is a checkpoint
to resume from, they find its folder, which is whole. While there is none, the shells are removed, so that a script
starts from scratch as it would in an empty output_dir.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers.trainer as trainer_module
from transformers import TrainingArguments, trainer_utils
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

_CONTENT = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.index.json",
    "*.distcp",
    "global_step*",
    "pytorch_model_fsdp*",
)
"""Patterns of files and folders that a checkpoint of Trainer's has at least one of."""


def hide(resume_folder: str | None) -> None:
    """Have a script's own look for a checkpoint find what is whole: `resume_folder`, or nothing of ours."""
    original = trainer_utils.get_last_checkpoint

    def get_last_checkpoint(folder: str) -> str | None:
        newest: str | None = original(folder)
        if newest is None or not is_shell(Path(newest)):
            return newest
        if resume_folder is not None:
            return resume_folder
        remove(Path(folder))
        return original(folder)

    trainer_utils.get_last_checkpoint = get_last_checkpoint
    trainer_module.get_last_checkpoint = get_last_checkpoint
    if resume_folder is None:
        TrainingArguments.__post_init__ = _removing(TrainingArguments.__post_init__)


def is_shell(folder: Path) -> bool:
    """Whether a folder is what a save of ours leaves in output_dir."""
    if not (folder / TRAINER_STATE_NAME).is_file():
        return False
    return not any(next(folder.glob(pattern), None) for pattern in _CONTENT)


def remove(output: Path) -> None:
    """Remove the shells below an output_dir."""
    for folder in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if is_shell(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _removing(original: Callable[..., None]) -> Callable[..., None]:
    """TrainingArguments.__post_init__, which is the first to know a script's output_dir."""

    def post_init(args: TrainingArguments, *rest: Any) -> None:
        original(args, *rest)
        if args.output_dir is not None and args.local_process_index == 0:
            remove(Path(args.output_dir))

    return post_init
