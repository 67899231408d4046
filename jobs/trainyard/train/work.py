"""What the launcher tells a training process: one JSON file, the same for all ranks."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainyard.checkpoint.staging import Run
from trainyard.spec.model import TrainerJob
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store


@dataclass(frozen=True)
class Work:
    """One attempt of one job."""

    manifest: dict[str, Any]
    arguments: dict[str, Any]
    """TrainingArguments in full, from the plan."""
    run_uri: str
    attempt: int
    staging: str
    """Folder of this attempt on the node's disk."""
    keep_last: int
    strategy: str
    every: str | None = None
    """How often a checkpoint is saved, where it is by time."""
    in_memory: bool = False
    """Whether checkpoints are staged in the node's memory, not on its disk."""
    tickets: str = ""
    """Folder in which the node's ranks say what they have staged. This and the next two are each node's own."""
    bell: str = ""
    """Unix socket of the node's uploader."""
    buffers: str = ""
    """Folder for this attempt's staging buffers."""
    resumed_id: str | None = None
    """Id of the checkpoint to go on from, already verified and lying in resume_folder."""
    global_batch_size: int | None = None
    """Samples of a step before that checkpoint."""
    resume_folder: str | None = None
    began: float | None = None
    """When the attempt began, in seconds since the epoch; None: with this process."""
    restoring: float = 0.0
    """Seconds from there until the checkpoint to go on from lay on the driver's node."""
    events: str | None = None
    """Unix socket that takes progress events; None where nobody listens."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the model card and the report show of the plan."""

    @property
    def job(self) -> TrainerJob:
        """The manifest as models."""
        return TrainerJob.model_validate(self.manifest)

    @property
    def run(self) -> Run:
        """The run, as the uploader knows it."""
        storage = self.job.spec.storage
        return Run(self.run_uri, storage.endpoint, storage.region)

    @property
    def store(self) -> Store:
        """The run's folder in storage."""
        return self.run.store.patient()

    @property
    def resumed(self) -> CheckpointId | None:
        """The checkpoint to go on from."""
        return CheckpointId.parse(self.resumed_id) if self.resumed_id else None

    def write(self, file: Path) -> None:
        """Save it where read() finds it."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: str | Path) -> "Work":
        """What write() saved."""
        return cls(**json.loads(Path(file).read_text(encoding="utf-8")))
