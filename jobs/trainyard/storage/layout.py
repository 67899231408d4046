"""Where each thing of a run lies, below the run's folder.

run.json                       resolved manifest, plan with reasons, versions, fingerprint of model and data
attempts/00003.json            claimed by conditional create
attempts/00003-end.json        how it ended
checkpoints/00000400-00003/    <step>-<attempt>: the files of every rank, what each node has sent (parts/1.json, where
                               there are several), and manifest.json, written last
newest-checkpoint              the name of the one that was committed last
logs/attempt-00003/rank-1.log
logs/worker-0/<start>.log      of each pod, on a cluster
metrics.jsonl                  every logged value
trackers/                      ids and files of what trainingArguments.report_to names
final/                         the model to use, and manifest.json

Logs and metrics.jsonl grow. An object store keeps them in segments (storage/segments).
"""

import re
from dataclasses import dataclass

RUN = "run.json"
METRICS = "metrics.jsonl"
FINAL = "final"
TRACKERS = "trackers"
ATTEMPTS = "attempts"
CHECKPOINTS = "checkpoints"
NEWEST = "newest-checkpoint"
MANIFEST = "manifest.json"
SET_ASIDE = "set-aside.json"
PARTS = "parts"

_CHECKPOINT = re.compile(r"(\d{8,})-(\d{5,})\Z")
_ATTEMPT = re.compile(rf"{ATTEMPTS}/(\d{{5,}})\.json\Z")


@dataclass(frozen=True, order=True)
class CheckpointId:
    """A checkpoint's name: the optimizer step it holds, and the attempt that wrote it."""

    step: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.step:08d}-{self.attempt:05d}"

    @property
    def folder(self) -> str:
        """Its folder below the run's."""
        return f"{CHECKPOINTS}/{self}"

    @classmethod
    def parse(cls, text: str) -> "CheckpointId | None":
        """The id written in a name, or None when the name is no checkpoint's."""
        match = _CHECKPOINT.match(text)
        return cls(int(match[1]), int(match[2])) if match else None

    @classmethod
    def step_of(cls, text: str | None) -> int:
        """The step that an id tells; 0 without one, and when it is none."""
        found = cls.parse(text or "")
        return found.step if found else 0


def parts_path(checkpoint: CheckpointId, node: int) -> str:
    """Where a node lists what it has uploaded of a checkpoint."""
    return f"{checkpoint.folder}/{PARTS}/{node}.json"


def attempt_path(number: int) -> str:
    """Where an attempt is claimed."""
    return f"{ATTEMPTS}/{number:05d}.json"


def attempt_end_path(number: int) -> str:
    """Where an attempt's end is told."""
    return f"{ATTEMPTS}/{number:05d}-end.json"


def attempt_number(path: str) -> int | None:
    """The attempt that a path claims, or None."""
    match = _ATTEMPT.match(path)
    return int(match[1]) if match else None


def pod_log_path(worker: int, started: str) -> str:
    """The log of a pod; `started` sorts by time."""
    return f"logs/worker-{worker}/{started}.log"


def log_path(attempt: int, rank: int) -> str:
    """The log of one training process."""
    return f"logs/attempt-{attempt:05d}/rank-{rank}.log"
