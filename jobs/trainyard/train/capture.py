"""What one save holds: files that are laid out in a slot's buffers, and the copies that are still to be made."""

import contextlib
import ctypes
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from trainyard.checkpoint.staging import StagedFile
from trainyard.checkpoint.transfer import folder_files, restored_path
from trainyard.train import tensorfile
from trainyard.train.copier import Copy
from trainyard.train.slots import Slot, Slots
from trainyard.train.tensorfile import Elsewhere, Layout

_SMALL = 64 * 1024
"""Bytes up to which a tensor is copied at once: cheaper than to care for it."""
_MODEL = "model.safetensors"
PICKLES = ("training_args.bin",)
"""Files of Trainer that resuming does not need and that only a pickle loader can open."""


class Capture:
    """One save: which files it has, and which copies are still to be made."""

    def __init__(self, root: Path, slot: Slot, slots: Slots, volatile: set[int]) -> None:
        self.root, self.slot, self.slots = root, slot, slots
        self.files: list[StagedFile] = []
        self.later: list[Copy] = []
        self._elsewhere = Elsewhere()
        self._volatile = volatile

    @contextlib.contextmanager
    def of_torch_save(self) -> Iterator[None]:
        """Within, torch.save puts what it is given below the root into the slot."""
        original = torch.save

        def save(item: Any, file: Any, *args: Any, **kwargs: Any) -> None:
            path = self.inside(file)
            if path is None:
                original(item, file, *args, **kwargs)
            elif path not in PICKLES:
                self.put(path, item, lambda target: original(item, target, *args, **kwargs))

        torch.save = save  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.save = original

    def put(self, path: str, item: Any, otherwise: Callable[[io.BytesIO], None]) -> None:
        """Take what torch.save was given for a path, as it would have saved it where such a file cannot hold it."""
        try:
            layout = tensorfile.lay_out(path, item, self._elsewhere)
        except tensorfile.UnsupportedError:
            stream = io.BytesIO()
            otherwise(stream)
            self._take(path, stream)
            return
        self._place(path + tensorfile.SUFFIX, layout)

    def put_tree(self, path: str, item: Any) -> None:
        """Take a structure that has a place in such a file for certain. Raises UnsupportedError when it has none."""
        self._place(path + tensorfile.SUFFIX, tensorfile.lay_out(path, item, self._elsewhere))

    def put_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take the model's weights."""
        self._place(_MODEL, tensorfile.lay_out_weights(_MODEL, weights, self._elsewhere))

    def take_written(self) -> None:
        """Take what was really written below the root: small things, and what an override of Trainer's saves itself."""
        taken = {restored_path(file.path) for file in self.files}
        for file in folder_files(self.root):
            if file.path in PICKLES or file.path in taken:
                continue
            with Path(file.source).open("rb") as stream:
                self._take(file.path, stream)

    def _take(self, path: str, stream: BinaryIO) -> None:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        buffer = self.slots.room(self.slot, len(self.files), size)
        if stream.readinto(memoryview(buffer.bytes.numpy())[:size]) != size:  # type: ignore[attr-defined]
            raise OSError(f"{path} has changed while it was read")
        self.files.append(StagedFile(path, str(buffer.path), size))

    def _place(self, path: str, layout: Layout) -> None:
        buffer = self.slots.room(self.slot, len(self.files), layout.size)
        target, begin = buffer.bytes, buffer.bytes.data_ptr()
        ctypes.memmove(begin, layout.header, len(layout.header))
        for at, tensor in layout.tensors:
            size = tensor.nbytes
            # To bring even a little from a GPU to the host at once would wait for all that is queued.
            at_once = not tensor.is_cuda and (size < _SMALL or self._is_volatile(tensor))
            if at_once and tensor.is_contiguous():
                ctypes.memmove(begin + at, tensor.data_ptr(), size)  # there are hundreds: torch takes ten times as long
                continue
            source = tensor.clone() if tensor.is_cuda and self._is_volatile(tensor) else tensor
            copy = Copy(source, target[at : at + size])
            if at_once:
                copy.now()
            else:
                self.later.append(copy)
        self.files.append(StagedFile(path, str(buffer.path), layout.size))

    def _is_volatile(self, tensor: torch.Tensor) -> bool:
        return bool(self._volatile) and tensor.untyped_storage().data_ptr() in self._volatile

    def inside(self, file: Any) -> str | None:
        """A file's path below the root; None when it is elsewhere, or no path."""
        if not isinstance(file, str | os.PathLike):
            return None
        path = Path(os.path.abspath(file))  # noqa: PTH100 - links are not to be followed
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else None
