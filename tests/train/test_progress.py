"""What rank 0 reports while a real Trainer trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from trainyard.checkpoint.doorbell import Metrics
from trainyard.checkpoint.staging import Run
from trainyard.launch.listener import Listener
from trainyard.launch.node import Node
from trainyard.storage.store import open_store
from trainyard.train.events import Events
from trainyard.train.metrics import MetricsLog, read_rows
from trainyard.train.progress import ProgressCallback

STEPS = 6


class Logs(TrainerCallback):
    """A user's callback that logs what JSON lacks."""

    trainer: Trainer

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        odd: dict[Any, Any] = {"step": "x", "event": None, "tensor": torch.tensor(0.5), "set": {1}, 7: torch.zeros(900)}
        self.trainer.log(odd)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """The events of a run, its Trainer, and its metrics.jsonl."""
    folder = tmp_path_factory.mktemp("run")
    node = Node(folder, folder)
    listener = Listener(node)
    store = open_store(str(folder / "stored"))
    kept = Metrics(folder / "metrics.jsonl", Run(store.uri, None, None), 1)
    log = MetricsLog(store, kept, folder / "bell", 0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, n_positions=8))
    args = TrainingArguments(
        output_dir=str(folder / "out"),
        use_cpu=True,
        max_steps=STEPS,
        logging_steps=1,
        save_steps=STEPS // 2,
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=2,
    )
    rows: Any = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 20
    users = Logs()
    trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[users])
    users.trainer = trainer
    reports = ProgressCallback(Events(str(node.events_socket), 1), log, 2, 8.0, lambda: 0.75)
    reports.on_train_end = lambda *_, **__: None  # type: ignore[method-assign] # there is no uploader
    trainer.add_callback(reports)
    events: list[dict[str, Any]] = []

    class Reads(TrainerCallback):
        """Empties the queue of the socket, which holds ten events."""

        def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            event = listener.receive()
            assert event is not None
            events.append(event)

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.on_log(args, trainer.state, trainer.control)

    trainer.add_callback(Reads())
    trainer.train()
    return events, trainer, log.file


Trained = tuple[list[dict[str, Any]], Trainer, Path]


def test_each_step_arrives_with_its_own_loss(trained: Trained) -> None:
    events, trainer, _ = trained
    logged = {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}
    reported = {event["step"]: event["loss"] for event in events if "loss" in event}
    assert len(logged) == STEPS
    assert reported == logged
    assert not [event for event in events if event["event"] == "step"], "a step is reported once"


def test_odd_values_end_neither_training_nor_a_save(trained: Trained) -> None:
    events, trainer, file = trained
    odd = [event for event in events if "tensor" in event]
    assert [event["step"] for event in odd] == list(range(STEPS))
    assert {(event["event"], event["tensor"], event["7"]) for event in odd} == {("log", 0.5, "Tensor of shape (900,)")}
    state = Path(trainer.args.output_dir, f"checkpoint-{STEPS}", "trainer_state.json")
    assert json.loads(state.read_text())["global_step"] == STEPS
    assert [row["step"] for row in read_rows(file.read_text()) if "loss" in row] == list(range(1, STEPS + 1))


def test_estimate_and_goodput_come_with_the_steps(trained: Trained) -> None:
    steps = [event for event in trained[0] if "loss" in event]
    assert "eta_seconds" not in steps[0]
    assert all(event["eta_seconds"] >= 0 for event in steps[1:])
    assert steps[-1]["eta_seconds"] == 0
    assert {event["goodput_share"] for event in steps} == {0.75}
