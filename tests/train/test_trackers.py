"""Trackers show one run, however often it was killed and resumed."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Tiny, losses
from tests.train.conftest import trains_on
from trainyard.launch.node import Node
from trainyard.storage.store import Store, open_store
from trainyard.train.trackers import Trackers

SCRIPT = """
import os, sys, threading, time
from pathlib import Path
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

class WaitsOnce(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:  # trackio writes beside the training
            until = time.monotonic() + 60
            while not list(Path(os.environ["TRACKIO_DIR"]).rglob("*.db")) and time.monotonic() < until:
                time.sleep(0.1)
        reached = Path("reached")
        if state.global_step == 5 and not reached.exists():
            reached.touch()
            threading.Event().wait()

rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 16)
args = TrainingArguments(
    "out", max_steps=8, save_steps=2, logging_steps=1, per_device_train_batch_size=2, disable_tqdm=True,
    report_to=["tensorboard", "mlflow", "wandb", "trackio"],
)
Trainer(AutoModelForCausalLM.from_pretrained(sys.argv[1]), args, train_dataset=rows, callbacks=[WaitsOnce()]).train()
"""
"""Waits at step 3 until there is something to send of every tracker, and at step 5 to be killed."""


@pytest.fixture(scope="module")
def run(node: Node, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed after its second checkpoint, and resumed."""
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "train.py").write_text(SCRIPT)
    train = trains_on(node, folder)
    script = {
        "path": "train.py",
        "args": [tiny.model("gpt2")],
        "env": {"WANDB_MODE": "offline", "TRACKIO_SHOW_DASHBOARD": "0"},
    }

    def kill_at_step_5(kill: Callable[[], None], ended: threading.Event) -> None:
        kept = folder / "job"
        while not ended.wait(0.1):
            committed = list(kept.glob("checkpoints/00000004*/manifest.json"))
            if (folder / "reached").exists() and committed and list(kept.glob("trackers/trackio/*.db")):
                kill()
                return

    train(code=str(folder), script=script, beside=kill_at_step_5)
    second = train(code=str(folder), script=script)
    assert second.result.outcome == "Complete", second.log
    assert set(losses(second.run)) == set(range(1, 9))
    return second.run / "trackers"


def test_a_file_that_its_tracker_removes_keeps_no_other_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = tmp_path / "kept", open_store(str(tmp_path / "run"))
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    put = Store.put

    def put_and_remove(self: Store, path: str, data: bytes) -> None:
        (folder / "b").unlink(missing_ok=True)
        put(self, path, data)

    monkeypatch.setattr(Store, "put", put_and_remove)
    Trackers(store, folder).send(last=True)
    assert [entry.path for entry in store.list()] == ["trackers/a", "trackers/c"]


def test_tensorboard_has_every_step(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list((run / "tensorboard").glob("events.*"))) == 2
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {event.step for event in events.Scalars("train/loss")} == set(range(1, 9))


def test_mlflow_has_one_finished_run(run: Path) -> None:
    with closing(sqlite3.connect(run / "mlflow.db")) as database:
        runs = database.execute("select status from runs").fetchall()
        steps = database.execute("select distinct step from metrics where key = 'loss'").fetchall()
    assert runs == [("FINISHED",)]
    assert {step for (step,) in steps} == set(range(1, 9))


def test_wandb_has_one_run(run: Path) -> None:
    folders = list((run / "wandb" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2, "an attempt each"
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1, "of one run"


def test_trackio_has_one_run(run: Path) -> None:
    (file,) = (run / "trackio").rglob("*.db")
    with closing(sqlite3.connect(file)) as database:
        names = database.execute("select distinct run_name from metrics").fetchall()
    assert names == [("job",)]
