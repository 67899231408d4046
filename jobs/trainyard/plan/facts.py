"""What can be known of a job's data, model and machine without loading any of them."""

import contextlib
import csv
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from trainyard.spec.model import Evaluation, Model, Source, Spec

_MAX_COUNTED_BYTES = 2 * 1024**3
_MAX_HEADER_BYTES = 100 * 1024**2


@dataclass(frozen=True)
class Facts:
    """Numbers for the plan; None where a number cannot be known from here."""

    train_rows: int | None = None
    evaluation_rows: int | None = None
    parameters: int | None = None
    largest_tensor: int | None = None
    memory_bytes: int | None = None


def gather(spec: Spec) -> Facts:
    """The facts of a job whose data and model lie on this machine."""
    if spec.model is None or spec.data is None:  # a script knows them
        return Facts(memory_bytes=available_memory())
    train, evaluation = split_rows(rows(spec.data.train), spec.data.evaluation)
    parameters, largest = _parameters(spec.model)
    return Facts(train, evaluation, parameters, largest, available_memory())


def split_rows(total: int | None, evaluation: Evaluation | None) -> tuple[int | None, int | None]:
    """Rows for training and for evaluation, as datasets' train_test_split divides them."""
    if evaluation is None:
        return total, None
    if evaluation.fraction is not None:
        if total is None:
            return None, None
        kept = math.ceil(total * evaluation.fraction)
        kept = min(kept, evaluation.max_samples or kept)
        return total - math.ceil(total * evaluation.fraction), kept
    return total, rows(evaluation)


def rows(source: Source | Evaluation) -> int | None:
    """Rows of a data set on this machine, or None when they cannot be counted cheaply."""
    file = Path(source.source or "").expanduser()
    if not file.is_file() or file.stat().st_size > _MAX_COUNTED_BYTES:
        return None
    counted = _count(file, source.format or file.suffix.lstrip("."))
    return min(counted, source.max_samples) if counted is not None and source.max_samples else counted


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that programs can still take here: of the machine, and within the limits of a container or a service.

    None where /proc does not tell. Limits are those of cgroups v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html);
    what is read from files and not used now (inactive_file) makes room when it is needed.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min(found + _within_limits(root)) if found else None


def _within_limits(root: Path) -> list[int]:
    """Bytes left in each cgroup around this process that has a limit."""
    mounted, left = root / "sys/fs/cgroup", list[int]()
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return left
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for folder in (mounted / own, *(mounted / own).parents):
        # A cgroup without a limit has "max" in its file, and the root of all has no file.
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            counted = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(max(0, limit - used + int(counted.get("inactive_file", 0))))
        if folder == mounted:
            break
    return left


def _count(file: Path, kind: str) -> int | None:
    if kind in ("json", "jsonl", "ndjson"):
        with file.open("rb") as stream:
            if stream.read(1) == b"[":
                return None
            stream.seek(0)
            return sum(1 for line in stream if line.strip())
    if kind == "csv":
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            return max(0, sum(1 for _ in csv.reader(stream)) - 1)
    if kind == "parquet":
        try:
            import pyarrow.parquet
        except ImportError:
            return None
        return int(pyarrow.parquet.read_metadata(file).num_rows)
    return None


def _parameters(model: Model) -> tuple[int | None, int | None]:
    """Parameters of all and of the largest tensor, from the headers of safetensors files.

    The format: 8 bytes little-endian length, then JSON (https://github.com/huggingface/safetensors).
    """
    if model.source is None or model.from_config:
        return None, None
    folder, sizes = Path(model.source).expanduser(), list[int]()
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        try:
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(min(length, _MAX_HEADER_BYTES)))
        except (OSError, ValueError, struct.error):
            return None, None
        sizes += [math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"]
    return (sum(sizes), max(sizes)) if sizes else (None, None)
