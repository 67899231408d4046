"""Trackers (trainingArguments.report_to): one run of a tracker for one run of ours, over restarts and resumes.

transformers begins a new tracker run in each process that trains. Here each attempt continues the run of the first one:
its ids, and what a tracker keeps in files, lie below `trackers/` of the run's storage. Rank 0 brings them before a
Trainer is made, and sends what has changed at each save and at the end. What a user has set in the environment stays.

| tracker | continues by | files |
|---|---|---|
| TensorBoard | one folder, in which each attempt writes a file of its own | `trackers/tensorboard/` |
| Weights & Biases | WANDB_RUN_ID, WANDB_RESUME | `trackers/wandb/`, when it is offline |
| MLflow | MLFLOW_RUN_ID | `trackers/mlflow.db`, when no MLFLOW_TRACKING_URI is set |
| Trackio | the run's name | `trackers/trackio/` |
"""

import functools
import json
import logging
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import transformers.trainer as trainer_module
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainyard.errors import TrainyardError
from trainyard.storage.layout import TRACKERS
from trainyard.storage.store import Store
from trainyard.train.arguments import staging_file
from trainyard.train.work import Work

_IDS = "ids.json"
_DATABASE = ".db"
_OF_A_MOMENT = ("-wal", "-shm", "-journal", ".lock")
"""Ends of the names of files that a database keeps while it is open; `_content` copies what stands in them."""
_LOG = logging.getLogger(__name__)


def install(work: Work) -> None:
    """Have each Trainer of this process continue the run's trackers. On other ranks than 0 there is nothing to do."""
    if os.environ.get("RANK", "0") != "0":
        return
    trackers = Trackers(work.store, staging_file(work, TRACKERS))
    original = trainer_module.get_reporting_integration_callbacks

    def get_reporting_integration_callbacks(report_to: list[str]) -> list[Any]:
        callbacks = original(report_to)
        if not callbacks:
            return callbacks
        trackers.begin()
        return [*callbacks, TrackersCallback(trackers)]

    trainer_module.get_reporting_integration_callbacks = get_reporting_integration_callbacks


class Trackers:
    """What the trackers of a run keep, here and in the run's storage."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._ids: dict[str, str] = {}
        self._sent: dict[str, tuple[int, int]] = {}
        self._changed = threading.Event()
        self._sending = threading.Lock()
        self._begun = False

    def begin(self) -> None:
        """Bring the files and the ids of earlier attempts, and tell the trackers of them."""
        if self._begun:
            return
        self._begun = True
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._bring()
        except TrainyardError as error:
            _LOG.warning("the trackers start from scratch, because their files cannot be read: %s", error)
        self._ids.setdefault("wandb", secrets.token_hex(8))
        self._keep_ids()
        for name, value in self._environment().items():
            os.environ.setdefault(name, value)
        threading.Thread(target=self._keep_sending, name="trackers", daemon=True).start()

    def note_mlflow(self) -> None:
        """Keep the id of the run that MLflow has begun."""
        mlflow = sys.modules.get("mlflow")
        run = mlflow.active_run() if mlflow is not None else None
        if run is not None and self._ids.get("mlflow") != run.info.run_id:
            self._ids["mlflow"] = run.info.run_id
            self._keep_ids()

    def send(self, last: bool = False) -> None:
        """Send what has changed, beside the training; with `last` return when it is sent."""
        if last:
            self._send()
        else:
            self._changed.set()

    def _keep_sending(self) -> None:
        while self._changed.wait():
            self._changed.clear()
            self._send()

    def _bring(self) -> None:
        for entry in self._store.list(TRACKERS):
            file = self._folder / entry.path.removeprefix(f"{TRACKERS}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._store.get(entry.path))
        ids = self._folder / _IDS
        if ids.exists():
            self._ids = json.loads(ids.read_text(encoding="utf-8"))

    def _keep_ids(self) -> None:
        data = json.dumps(self._ids).encode()
        (self._folder / _IDS).write_bytes(data)
        _without_harm(lambda: self._store.put(f"{TRACKERS}/{_IDS}", data))

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        wandb = folder / "wandb"
        wandb.mkdir(exist_ok=True)
        variables = {
            "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
            "WANDB_DIR": str(wandb),
            "WANDB_RUN_ID": self._ids["wandb"],
            "WANDB_RESUME": "allow",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "TRACKIO_DIR": str(folder / "trackio"),
        }
        return variables | ({"MLFLOW_RUN_ID": self._ids["mlflow"]} if "mlflow" in self._ids else {})

    def _send(self) -> None:
        with self._sending:
            _without_harm(self._send_changed)

    def _send_changed(self) -> None:
        for file in sorted(self._folder.rglob("*")):
            if file.is_file() and not file.is_symlink() and not file.name.endswith(_OF_A_MOMENT):
                _without_harm(functools.partial(self._send_file, file))

    def _send_file(self, file: Path) -> None:
        path = f"{TRACKERS}/{file.relative_to(self._folder)}"
        try:
            status = file.stat()
            mark = (status.st_size, status.st_mtime_ns)
            if self._sent.get(path) == mark:
                return
            content = _content(file)
        except FileNotFoundError:  # its tracker has renamed or removed it meanwhile
            return
        self._store.put(path, content)
        self._sent[path] = mark


class TrackersCallback(TrainerCallback):
    """Keeps the trackers' files with the checkpoints. Comes after the trackers' own callbacks."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The trackers have begun their runs."""
        _without_harm(self._trackers.note_mlflow)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What is shown up to a checkpoint is there when the run resumes from it."""
        self._trackers.send()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The trackers have ended their runs."""
        self._trackers.send(last=True)


def _content(file: Path) -> bytes:
    """A file's bytes; of a database that is in use those of a consistent copy."""
    if file.suffix != _DATABASE:
        return file.read_bytes()
    with (
        closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy)
        return copy.serialize()


def _without_harm(send: Callable[[], None]) -> None:
    """Send something. Trackers never take training down: what cannot be sent is tried again at the next save."""
    try:
        send()
    except (TrainyardError, OSError, sqlite3.Error) as error:
        _LOG.warning("what trackers keep could not be sent to the run's storage: %s", error)
