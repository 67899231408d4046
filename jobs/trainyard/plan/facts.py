"""What can be known of a job's data, model and machine without loading any of them."""

import json
import math
import shutil
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainyard.errors import JobError
from trainyard.plan import configfile
from trainyard.plan.choice import Choice
from trainyard.plan.machine import MEMORY, available_memory
from trainyard.plan.peek import count, label_lines
from trainyard.plan.vocabulary import embeddings
from trainyard.spec.model import Evaluation, Model, Spec

_MAX_HEADER_BYTES = 100 * 1024**2


@dataclass(frozen=True)
class Facts:
    """Numbers for the plan; None where a number cannot be known from here."""

    train_rows: int | None = None
    evaluation_rows: int | None = None
    parameters: int | None = None
    largest_tensor: int | None = None
    stored_dtype: str | None = None
    """The dtype of the model's files."""
    memory_bytes: int | None = None
    """That programs can still take."""
    shared_memory_bytes: int | None = None
    """Of MEMORY in all: a container may have less than the machine."""
    free_disk_bytes: int | None = None
    """Of the disk for temporary files."""
    labels: Mapping[str, Choice[str]] = field(default_factory=dict)
    """The lines that say what the labels are, by name; empty where that is not known from here."""
    embeddings: Choice[str] | None = None
    """Those that the model gets for added tokens; None where there are none, or that is not known from here."""
    problem: str | None = None
    """Why nothing can be trained on these files; the training process would refuse them likewise."""

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
    try:
        train, evaluation = split_rows(count(spec.data.train, "data.train"), spec.data.evaluation)
        labels = label_lines(spec)
        parameters, largest = _parameters(spec.model)
    except JobError as error:
        return replace(machine, problem=str(error))
    return replace(
        machine,
        train_rows=train,
        evaluation_rows=evaluation,
        parameters=parameters,
        largest_tensor=largest,
        stored_dtype=configfile.stored_dtype(spec.model),
        labels=labels,
        embeddings=embeddings(spec),
    )


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
    return total, count(evaluation, "data.evaluation")


def _parameters(model: Model) -> tuple[int | None, int | None]:
    """Parameters of all and of the largest tensor, from the headers of safetensors files.

    The format: 8 bytes little-endian length, then JSON (https://github.com/huggingface/safetensors).
    Raises JobError for a file that is damaged.
    """
    if model.source is None or model.from_config:
        return None, None
    folder = Path(model.source).expanduser()
    sizes: list[int] = []
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        sizes += _sizes(file)
    return (sum(sizes), max(sizes)) if sizes else (None, None)


def _sizes(file: Path) -> list[int]:
    """The number of values of each tensor in a safetensors file. Raises JobError for a damaged one."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _MAX_HEADER_BYTES)))
        shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
        return [math.prod(map(int, shape)) for shape in shapes]
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError) as error:
        raise JobError(f"spec.model.source: {file} is no safetensors file, or a damaged one") from error
