"""A committed checkpoint as plain Trainer writes its own: files of torch.save instead of ours."""

from pathlib import Path

import torch

from trainyard.train import tensorfile


def as_trainer(folder: Path) -> list[str]:
    """Turn the files of a checkpoint in a folder into those of torch.save, in place. Returns their names.

    Weights stay as they are: they are safetensors on both sides.
    """
    trees = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in (".pt", ".pth", ".bin") and tensorfile.is_tree(file)
    ]
    loaded = [(file, tensorfile.load(file)) for file in trees]  # all first: some hold tensors of others
    for file, item in loaded:
        partial = file.with_name(f".{file.name}.partial")
        torch.save(item, partial)
        partial.replace(file)
    return [str(file.relative_to(folder)) for file in trees]
