"""Files like those of torch.save, without a pickle: safetensors, whose metadata holds the structure around the tensors.

Such a file is laid out before a byte of a tensor is copied, so that a copy can go straight to its place in it, and it
is read without running anybody's code. Weights are plain safetensors; anything else (the state of an optimizer, of a
scheduler, of DeepSpeed's engine) also has the metadata key `tree`: its structure as JSON, with tensors by name.

The format: https://github.com/huggingface/safetensors#format
"""

import base64
import collections
import enum
import importlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

SUFFIX = ".safetensors"
"""What a file of ours is called in storage, after the name that Trainer or DeepSpeed gives it (`optimizer.pt`)."""
_TREE = "tree"
_ALIGN = 8
_MAX_HEADER = 1 << 30
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Kinds of tensors that are their memory; quantized ones of other packages are wrappers without an address."""
_SCALARS = frozenset((bool, int, float, str, type(None)))
_TRUSTED = ("deepspeed.",)
"""Packages whose plain objects (loss scalers, fragment addresses) are made again from their fields."""


@dataclass(frozen=True)
class Shard:
    """One rank's part of a tensor that is spread over the ranks."""

    tensor: torch.Tensor
    shape: tuple[int, ...]
    """Of the whole."""
    offset: tuple[int, ...]
    """Where the part begins in it."""


Key = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]


class UnsupportedError(TypeError):
    """Something that such a file cannot hold."""


@dataclass(frozen=True)
class Layout:
    """Where everything of a file goes."""

    header: bytes
    """With the length before it: what the file begins with."""
    tensors: tuple[tuple[int, torch.Tensor], ...]
    """Each tensor with the offset of its bytes in the file."""
    size: int
    """Of the whole file, in bytes."""


@dataclass
class Elsewhere:
    """Tensors that another file of the same checkpoint holds already, by what they are in memory."""

    places: dict[Key, tuple[str, str]] = field(default_factory=dict)


def key(tensor: torch.Tensor) -> Key:
    """The same for two tensors that are the same memory in the same shape."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def lay_out_weights(path: str, weights: dict[str, torch.Tensor], elsewhere: Elsewhere | None = None) -> Layout:
    """The layout of a state dict as plain safetensors; of tied weights the first name is kept, as transformers does."""
    named: dict[Key, tuple[str, torch.Tensor]] = {}
    for name, tensor in weights.items():
        if type(tensor) not in _PLAIN or tensor.layout is not torch.strided:
            raise UnsupportedError(f"{path}: {name} is a {type(tensor).__name__} ({tensor.layout})")
        named.setdefault(key(tensor) if tensor.numel() else (0, tensor.dtype, (hash(name),), ()), (name, tensor))
    if elsewhere is not None:
        elsewhere.places |= {each: (path, name) for each, (name, tensor) in named.items() if tensor.numel()}
    return _lay_out(dict(named.values()), {"format": "pt"})


def lay_out(path: str, item: Any, elsewhere: Elsewhere | None = None) -> Layout:
    """The layout of any structure of containers, numbers, texts and tensors. Raises UnsupportedError."""
    encoder = _Encoder(path, elsewhere or Elsewhere())
    tree = encoder.encode(item)
    return _lay_out(encoder.tensors, {_TREE: json.dumps(tree, separators=(",", ":"))})


def is_tree(file: str | os.PathLike[str]) -> bool:
    """Whether a file is one of lay_out()'s: torch.save's begin with `PK` or a pickle's mark."""
    try:
        with Path(file).open("rb") as stream:
            start = stream.read(_ALIGN + 1)
    except OSError:
        return False
    return (
        len(start) == _ALIGN + 1 and start[_ALIGN:] == b"{" and int.from_bytes(start[:_ALIGN], "little") < _MAX_HEADER
    )


def load(file: str | os.PathLike[str], mapped: bool = False) -> Any:
    """What was laid out; tensors are on the CPU. Raises ValueError when the file is none of ours.

    `mapped`: the tensors lie in the file, and take memory only where they are looked at.
    """
    path = Path(file)
    reader = _Reader(path, mapped)
    metadata = reader.header.get("__metadata__", {})
    if _TREE not in metadata:
        return {name: reader.tensor(name) for name in reader.header if name != "__metadata__"}
    return _Decoder(path, reader).decode(json.loads(metadata[_TREE]))


def _lay_out(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Layout:
    # The widest types first, so that each tensor's bytes are aligned.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    entries = [f'"__metadata__":{json.dumps(metadata)}']
    kinds: dict[tuple[torch.dtype, torch.Size], tuple[str, int]] = {}  # few: layers are alike
    offset, placed, quoted = 0, [], json.JSONEncoder().encode
    for name, tensor in ordered:
        kind = tensor.dtype, tensor.shape
        if kind not in kinds:
            if tensor.dtype not in _NAMES:
                raise UnsupportedError(f"{name}: a tensor of {tensor.dtype}")
            kinds[kind] = f'"dtype":"{_NAMES[tensor.dtype]}","shape":{list(tensor.shape)}', tensor.nbytes
        told, size = kinds[kind]
        entries.append(f'{quoted(name)}:{{{told},"data_offsets":[{offset},{offset + size}]}}')
        placed.append((offset, tensor))
        offset += size
    text = f"{{{','.join(entries)}}}".encode()
    text += b" " * (-len(text) % _ALIGN)
    header = len(text).to_bytes(_ALIGN, "little") + text
    return Layout(header, tuple((len(header) + at, tensor) for at, tensor in placed), len(header) + offset)


class _Encoder:
    """Turns a structure into JSON: scalars are themselves, everything else is a list that begins with its kind."""

    def __init__(self, path: str, elsewhere: Elsewhere) -> None:
        self.path, self.elsewhere = path, elsewhere
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[Key, str] = {}

    def encode(self, item: Any, name: str = "") -> Any:
        kind = type(item)  # what there are hundreds of comes first: training stands still meanwhile
        if kind in _SCALARS:
            return item
        if kind in _PLAIN and item.layout is torch.strided:
            return self._tensor(item, name)
        if isinstance(item, dict):
            ordered = "ordered" if isinstance(item, collections.OrderedDict) else "dict"
            return [ordered, [[self.encode(each), self.encode(it, _join(name, each))] for each, it in item.items()]]
        if isinstance(item, DTensor):
            _, offset = compute_local_shape_and_global_offset(item.shape, item.device_mesh, item.placements)
            return ["shard", self._tensor(item.to_local(), name), list(item.shape), list(offset)]
        if isinstance(item, torch.Tensor):
            raise UnsupportedError(f"{self.path}: {name} is a {kind.__name__} ({item.layout})")
        if isinstance(item, enum.Enum):
            return ["enum", _class_name(item), self.encode(item.value)]
        if isinstance(item, torch.Size):
            return ["size", list(item)]
        if type(item) in (list, tuple, set, frozenset):
            kind = type(item).__name__
            if all(type(each) in _SCALARS for each in item):  # thousands, in the state of a random generator
                return [kind, list(item)]
            return [kind, [self.encode(each, _join(name, index)) for index, each in enumerate(item)]]
        return self._other(item, name)

    def _other(self, item: Any, name: str) -> Any:
        if isinstance(item, bytes):
            return ["bytes", base64.b64encode(item).decode()]
        if isinstance(item, torch.dtype):
            return ["dtype", str(item).removeprefix("torch.")]
        if isinstance(item, np.ndarray | np.generic):
            array = np.ascontiguousarray(item)
            return ["array", array.dtype.str, list(np.shape(item)), base64.b64encode(array.tobytes()).decode()]
        if isinstance(item, bool | int | float | str):  # of a subclass
            return next(kind(item) for kind in (bool, int, float, str) if isinstance(item, kind))
        if type(item).__module__.startswith(_TRUSTED):
            return ["object", _class_name(item), self.encode(dict(vars(item)), name)]
        raise UnsupportedError(f"{self.path}: {name or 'the whole'} is a {type(item).__module__}.{type(item).__name__}")

    def _tensor(self, tensor: torch.Tensor, name: str) -> Any:
        found = key(tensor) if tensor.numel() else None
        if found is not None and found in self.elsewhere.places:
            path, there = self.elsewhere.places[found]
            return ["other", os.path.relpath(path, Path(self.path).parent), there]
        if found is not None and found in self._seen:
            return ["tensor", self._seen[found]]
        unique = name or "tensor"
        while unique in self.tensors:
            unique += "_"
        self.tensors[unique] = tensor
        if found is not None:
            self._seen[found] = unique
        return ["tensor", unique]


class _Decoder:
    def __init__(self, path: Path, reader: "_Reader") -> None:
        self.path, self.reader = path, reader
        self._others: dict[Path, _Reader] = {}

    def decode(self, item: Any) -> Any:
        if not isinstance(item, list):
            return item
        kind, *rest = item
        if kind == "tensor":
            return self.reader.tensor(rest[0])
        if kind == "other":
            path = (self.path.parent / rest[0]).resolve()
            if path not in self._others:
                self._others[path] = _Reader(path)
            return self._others[path].tensor(rest[1])
        if kind == "shard":
            return Shard(self.decode(rest[0]), tuple(rest[1]), tuple(rest[2]))
        if kind in ("dict", "ordered"):
            pairs = [(self.decode(each), self.decode(value)) for each, value in rest[0]]
            return dict(pairs) if kind == "dict" else collections.OrderedDict(pairs)
        if kind in ("list", "tuple", "set", "frozenset"):
            made = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
            return made(self.decode(each) for each in rest[0])
        return self._other(kind, rest)

    def _other(self, kind: str, rest: list[Any]) -> Any:
        if kind == "size":
            return torch.Size(rest[0])
        if kind == "bytes":
            return base64.b64decode(rest[0])
        if kind == "dtype":
            return getattr(torch, rest[0])
        if kind == "array":
            array = np.frombuffer(base64.b64decode(rest[2]), dtype=np.dtype(rest[0])).reshape(rest[1]).copy()
            return array if rest[1] else array[()]
        if kind == "enum":
            return _class(rest[0])(self.decode(rest[1]))
        if kind == "object":
            made = object.__new__(_class(rest[0]))
            made.__dict__.update(self.decode(rest[1]))
            return made
        raise ValueError(f"{self.path}: unknown kind {kind!r}; written by another version of trainyard")


class _Reader:
    """The tensors of a safetensors file, each read when it is asked for, once."""

    def __init__(self, path: Path, mapped: bool = False) -> None:
        self.path = path
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_ALIGN), "little")
            if length >= _MAX_HEADER:
                raise ValueError(f"{path}: not a safetensors file")
            self.header: dict[str, Any] = json.loads(stream.read(length))
        self._start = _ALIGN + length
        # One mapping of all tensors: each would keep the file open. What is written to is copied; the file stays.
        self._map = np.memmap(path, np.uint8, "c") if mapped else None
        self._read: dict[str, torch.Tensor] = {}

    def tensor(self, name: str) -> torch.Tensor:
        if name not in self._read:
            entry = self.header[name]
            at, end = (self._start + offset for offset in entry["data_offsets"])
            if end > self.path.stat().st_size:
                raise ValueError(f"{self.path}: {name} is cut short")
            shape, dtype = entry["shape"], _DTYPES[entry["dtype"]]
            if self._map is not None and end > at:
                self._read[name] = torch.from_numpy(self._map[at:end]).view(dtype).reshape(shape)
            else:
                self._read[name] = made = torch.empty(shape, dtype=dtype)
                self._fill(made, at)
        return self._read[name]

    def _fill(self, made: torch.Tensor, at: int) -> None:
        if not made.numel():
            return
        with self.path.open("rb", buffering=0) as stream:
            stream.seek(at)
            view = memoryview(made.reshape(-1).view(torch.uint8).numpy())
            while len(view):
                if not (got := stream.readinto(view)):
                    raise ValueError(f"{self.path} is cut short")
                view = view[got:]


def _class_name(item: Any) -> str:
    made = f"{type(item).__module__}:{type(item).__qualname__}"
    if not made.startswith(_TRUSTED):
        raise UnsupportedError(f"an object of {made}")
    return made


def _class(name: str) -> Any:
    if not name.startswith(_TRUSTED):
        raise ValueError(f"{name}: only objects of {', '.join(_TRUSTED)} are made again")
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    assert isinstance(found, type)
    return found


def _join(name: str, part: Any) -> str:
    return f"{name}.{part}" if name else str(part)
