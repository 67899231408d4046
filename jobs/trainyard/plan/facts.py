"""What can be known of a job's data, model and machine without loading any of them."""

import csv
import json
import math
import shutil
import struct
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from trainyard.plan.machine import MEMORY, available_memory
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
    """That programs can still take."""
    shared_memory_bytes: int | None = None
    """Of MEMORY in all: a container may have less than the machine."""
    free_disk_bytes: int | None = None
    """Of the disk for temporary files."""

    def elsewhere(self) -> "Facts":
        """What holds on other machines, too."""
        return replace(self, memory_bytes=None, shared_memory_bytes=None, free_disk_bytes=None)


def gather(spec: Spec) -> Facts:
    """The facts of a job whose data and model lie on this machine."""
    machine = Facts(
        memory_bytes=available_memory(),
        shared_memory_bytes=shutil.disk_usage(MEMORY).total if Path(MEMORY).is_dir() else None,
        free_disk_bytes=shutil.disk_usage(tempfile.gettempdir()).free,
    )
    if spec.model is None or spec.data is None:  # a script knows them
        return machine
    train, evaluation = split_rows(rows(spec.data.train), spec.data.evaluation)
    parameters, largest = _parameters(spec.model)
    return replace(machine, train_rows=train, evaluation_rows=evaluation, parameters=parameters, largest_tensor=largest)


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
