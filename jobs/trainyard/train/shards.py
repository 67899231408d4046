"""FSDP2's state in parts: what torch.distributed.checkpoint is given goes into a slot, and comes back from there.

Each rank keeps its own shards, with where they belong in the whole. A rank that reads takes the parts that overlap
with its own shard, so any number of ranks can go on from what any other number has written.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from trainyard.train import tensorfile
from trainyard.train.tensorfile import Shard

_FILE = "shard_rank_{rank}.pt"


class ShardsError(ValueError):
    """A checkpoint lacks what the model or the optimizer has."""


@contextlib.contextmanager
def of_dcp_save(put: Callable[[str, Any], None], inside: Callable[[Any], str | None]) -> Iterator[None]:
    """Within, what dcp.save would write below a checkpoint's folder is handed over instead, without a collective."""
    original = dcp.save

    def save(state_dict: dict[str, Any], **kwargs: Any) -> Any:
        folder = inside(getattr(kwargs.get("storage_writer"), "path", None))
        if folder is None:
            return original(state_dict, **kwargs)
        put(f"{folder}/{_FILE.format(rank=dist.get_rank())}", state_dict)
        return None

    dcp.save = save
    try:
        yield
    finally:
        dcp.save = original


def loading(original: Callable[..., Any]) -> Callable[..., Any]:
    """dcp.load that also reads what was kept by rank, into the tensors that it is given."""

    def load(state_dict: dict[str, Any], **kwargs: Any) -> Any:
        folder = Path(str(getattr(kwargs.get("storage_reader"), "path", "")))
        if not any(folder.glob(_FILE.format(rank="*"))):
            try:
                return original(state_dict, **kwargs)
            except CheckpointException as error:  # no Exception, and of every rank
                raise ShardsError(str(next(iter(error.failures.values()))[0])) from error
        _Parts(folder).fill(state_dict, ())
        return None

    return load


def whole(folder: Path) -> dict[str, Any]:
    """Everything that the ranks have kept in a folder, put together."""
    made: dict[str, Any] = _together(_loaded(folder))
    return made


def _loaded(folder: Path) -> list[Any]:
    """What each rank has kept: mapped, for all of it together may not fit into memory."""
    return [tensorfile.load(file, mapped=True) for file in sorted(folder.glob(_FILE.format(rank="*")))]


def folders(checkpoint: Path) -> list[Path]:
    """The folders of a checkpoint that hold shards by rank."""
    return sorted({file.parent for file in checkpoint.rglob(_FILE.format(rank="*"))})


def clear(folder: Path) -> None:
    """Remove the shards of a folder."""
    for file in folder.glob(_FILE.format(rank="*")):
        file.unlink()


class _Parts:
    """The files of a folder; those of other ranks are opened only when they are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = folder / _FILE.format(rank=dist.get_rank() if dist.is_initialized() else 0)
        self.own = tensorfile.load(own, mapped=True) if own.exists() else None

    @cached_property
    def all(self) -> list[Any]:
        return _loaded(self.folder)

    def fill(self, target: Any, path: tuple[Any, ...]) -> None:
        """Fill the tensors of a structure, and replace its other values, in place."""
        for name, item in target.items() if isinstance(target, dict) else enumerate(target):
            where = (*path, name)
            if isinstance(item, dict | list):
                self.fill(item, where)
            elif isinstance(item, DTensor):
                self._fill_shard(item, where)
            elif isinstance(item, torch.Tensor):
                item.copy_(_at(self._any(), where))
            else:
                target[name] = _at(self._any(), where)

    def _any(self) -> Any:
        return self.own if self.own is not None else self.all[0]

    def _fill_shard(self, target: DTensor, where: tuple[Any, ...]) -> None:
        shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
        local = target.to_local()
        own = _at(self.own, where) if self.own is not None else None
        if isinstance(own, Shard) and own.offset == tuple(offset) and tuple(own.tensor.shape) == tuple(shape):
            local.copy_(own.tensor)
            return
        found = 0
        for tree in self.all:
            part = _at(tree, where)
            assert isinstance(part, Shard)
            if part.shape != tuple(target.shape):
                raise ShardsError(
                    f"{'.'.join(map(str, where))} has shape {part.shape}, the model {tuple(target.shape)}"
                )
            found += _copy_overlap(local, tuple(offset), part.tensor, part.offset)
        if found < local.numel():
            raise ShardsError(
                f"{'.'.join(map(str, where))}: only {found} of this rank's {local.numel()} elements are here"
            )


def _copy_overlap(target: torch.Tensor, at: Sequence[int], source: torch.Tensor, there: Sequence[int]) -> int:
    """Copy what two parts of a tensor have in common; returns how many elements."""
    into, out = [], []
    for size, begin, other_size, other_begin in zip(target.shape, at, source.shape, there, strict=True):
        first, last = max(begin, other_begin), min(begin + size, other_begin + other_size)
        if first >= last:
            return 0
        into.append(slice(first - begin, last - begin))
        out.append(slice(first - other_begin, last - other_begin))
    part = target[tuple(into)]
    part.copy_(source[tuple(out)])
    return part.numel()


def _together(trees: list[Any]) -> Any:
    first = trees[0]
    if isinstance(first, dict):
        return {name: _together([tree[name] for tree in trees]) for name in first}
    if isinstance(first, list):
        return [_together([tree[index] for tree in trees]) for index in range(len(first))]
    if not isinstance(first, Shard):
        return first
    made = torch.empty(first.shape, dtype=first.tensor.dtype)
    copied = sum(_copy_overlap(made, [0] * made.dim(), part.tensor, part.offset) for part in trees)
    if copied < made.numel():
        raise ShardsError(f"only {copied} of {made.numel()} elements are in the ranks' files")
    return made


def _at(tree: Any, where: tuple[Any, ...]) -> Any:
    for name in where:
        try:
            tree = tree[name]
        except (KeyError, IndexError):
            raise ShardsError(f"the checkpoint has no {'.'.join(map(str, where))}") from None
    return tree
