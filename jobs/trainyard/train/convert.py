"""A committed checkpoint as plain Trainer writes its own: files of torch.save instead of ours."""

from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from trainyard.train import shards, tensorfile


def as_trainer(folder: Path) -> None:
    """Turn the files of a checkpoint in a folder into those of torch.save, in place.

    Weights stay as they are: they are safetensors on both sides.
    """
    for folder_of_shards in shards.folders(folder):
        made = shards.whole(folder_of_shards)
        shards.clear(folder_of_shards)
        dcp.save(made, storage_writer=dcp.FileSystemWriter(folder_of_shards), no_dist=True)
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
