"""What training processes report, and what of it is shown."""

import decimal
import json
import math
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainyard.checkpoint.doorbell import Metrics
from trainyard.checkpoint.staging import Run
from trainyard.launch.listener import Listener
from trainyard.launch.node import Node
from trainyard.launch.progress import Plain
from trainyard.storage.store import open_store
from trainyard.train.events import MAX_BYTES, Events, encode, plain
from trainyard.train.metrics import MetricsLog, read_rows
from trainyard.train.progress import ProgressCallback


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, tmp_path)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


def test_events_of_an_attempt_that_is_over_are_not_shown(node: Node) -> None:
    listener = Listener(node)
    old, new = (Events(str(node.events_socket), attempt) for attempt in (1, 2))
    old.send("step", step=1, total=9)
    listener.tell({"event": "attempt", "attempt": 2, "resumed": None})
    old.send("step", step=2, total=9)
    new.send("step", step=1, total=9)
    listener.tell({"event": "note", "text": "of no attempt"})
    received = [listener.receive() for _ in range(5)]
    assert [event and event["event"] for event in received] == ["step", "attempt", None, "step", "note"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (math.nan, None),
        (-math.inf, None),
        (True, True),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([1, 2]), [1, 2]),
        (np.array([math.nan]), [None]),
        (torch.tensor(0.25), 0.25),
        (torch.tensor(0.25, dtype=torch.bfloat16, requires_grad=True), 0.25),
        (torch.zeros(1000, 1000), "Tensor of shape (1000, 1000)"),
        ({"b", "a"}, ["a", "b"]),
        ((1, {2: 3}), [1, {"2": 3}]),
        (decimal.Decimal("1.5"), "1.5"),
        (Path("/x"), "/x"),
        ("\ud800", "?"),
        (Unprintable(), "<Unprintable>"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_json_lacks_is_converted(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert json.loads(encode({"value": value})) == {"value": expected}


def test_a_list_in_itself_ends() -> None:
    assert "…" in json.dumps(plain(CYCLE), ensure_ascii=False) or len(str(plain(CYCLE))) < 200


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 70_000},
        {"text": "short", **{f"metric_{number}": 0.5 for number in range(10_000)}},
        {"text": "short", "rows": [["y" * 5000] * 500] * 500},
    ],
    ids=["long text", "many fields", "deep and wide"],
)
def test_event_of_any_size_arrives(node: Node, fields: dict[str, Any]) -> None:
    listener = Listener(node)
    Events(str(node.events_socket), 1).send("note", **fields)
    listener.tell({"event": "note", **fields})
    for _ in range(2):
        event = listener.receive()
        assert event is not None
        assert event["text"].startswith(("xxx", "short"))
        assert len(json.dumps(event)) <= MAX_BYTES


def test_rare_event_waits_for_room_and_steps_do_not(node: Node) -> None:
    listener, sender = Listener(node), Events(str(node.events_socket), 1)
    for step in range(100):
        sender.send("step", step=step, total=100)
    received: list[str] = []

    def read() -> None:
        while "note" not in received:
            event = listener.receive()
            assert event is not None
            received.append(event["event"])

    reader = threading.Timer(0.1, read)
    reader.start()
    sender.send("note", text="not lost")
    reader.join(10)
    assert received[-1] == "note"
    assert received.count("step") < 100


def test_nobody_waits_for_a_receiver_that_stands_still(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard.train.events._PATIENCE", 0.05)
    listener, sender = Listener(node), Events(str(node.events_socket), 1)
    for _ in range(30):
        sender.send("note", text="nobody reads")
    event = listener.receive()
    assert event is not None
    assert event["text"] == "nobody reads"


def test_end_of_a_long_message_is_kept() -> None:
    text = json.loads(encode({"text": "first line\n" + "x" * 70_000 + "\nlast line"}))["text"]
    assert text.startswith("first line")
    assert text.endswith("last line")


@pytest.mark.parametrize(
    "datagram",
    [
        b"", b"{", b"[]", b"3", b'"step"', b"{}", b'{"event": 3}', b'{"event": "step", "step": 3}',
        b'{"event": "step", "step": "three", "total": 9}', b'{"event": "note"}', b"[" * 50_000, b"\xff\xfe",
        b'{"event": "note", "text": "cut',
    ],
    ids=range(13),
)  # fmt: skip
def test_bad_datagram_is_no_event(node: Node, datagram: bytes) -> None:
    listener = Listener(node)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(datagram, str(node.events_socket))
    Events(str(node.events_socket), 1).send("note", text="the next one")
    assert listener.receive() is None
    assert listener.receive() == {"event": "note", "attempt": 1, "text": "the next one"}


class Rows:
    """metrics.jsonl, as rows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.counting: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def callback(node: Node, rows: Rows) -> ProgressCallback:
    log: Any = rows
    return ProgressCallback(Events(str(node.events_socket), 1), log, 4, None, lambda: 0.5)


def arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")


def test_user_cannot_log_away_step_or_event(node: Node, tmp_path: Path) -> None:
    listener, rows = Listener(node), Rows()
    logged = {"event": 1, "attempt": 7, "step": "x", "total": None, 3: {"a"}, "loss": torch.tensor(0.5)}
    state = TrainerState(global_step=3, max_steps=9, log_history=[dict(logged)])
    callback(node, rows).on_log(arguments(tmp_path), state, TrainerControl(), logs=logged)
    event = listener.receive()
    assert event is not None
    assert (event["event"], event["attempt"], event["step"], event["total"]) == ("log", 1, 3, 9)
    assert (event["loss"], event["3"]) == (0.5, ["a"])
    assert rows.rows[0]["step"] == 3
    state.save_to_json(str(tmp_path / "trainer_state.json"))


def test_step_is_reported_beside_thousands_of_metrics(node: Node, tmp_path: Path) -> None:
    listener = Listener(node)
    store = open_store(str(tmp_path / "run"))
    log = MetricsLog(store, Metrics(tmp_path / "metrics.jsonl", Run(store.uri, None, None), 1), tmp_path / "bell", 0)
    logged = {f"metric_{number}": 0.5 for number in range(10_000)}
    reports = ProgressCallback(Events(str(node.events_socket), 1), log, 4, None)
    reports.on_log(arguments(tmp_path), TrainerState(global_step=3, max_steps=9), TrainerControl(), logs=logged)
    event = listener.receive()
    assert event is not None
    assert (event["step"], event["total"], event["metric_0"]) == (3, 9, 0.5)
    row = read_rows(log.file.read_text())[0]
    assert (row["step"], row["metric_0"]) == (3, 0.5)
    assert row["time"] > 0


def train(node: Node, folder: Path, steps: range, resumed: int = 0) -> None:
    """The callbacks of steps of which each one's loss is logged: 1/step."""
    control, state = TrainerControl(), TrainerState(global_step=resumed, max_steps=100)
    reports, args = callback(node, Rows()), arguments(folder)
    reports.on_train_begin(args, state, control)
    for step in steps:
        reports.on_step_begin(args, state, control)
        state.global_step = step
        control.should_log = True
        reports.on_step_end(args, state, control)
        control.should_log = False
        reports.on_log(args, state, control, logs={"loss": 1 / step})


def test_each_step_is_shown_with_its_own_loss(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard.launch.progress._PLAIN_INTERVAL", 0.0)
    listener, console = Listener(node), Console(record=True, width=200, quiet=True)
    console.quiet = False
    display = Plain(console, "job")
    train(node, tmp_path, range(1, 5))
    for _ in range(5):
        event = listener.receive()
        assert event is not None
        display.show(event)
    lines = [line for line in console.export_text().splitlines() if "step" in line]
    assert [line.split("ETA")[0].split("  ")[:2] for line in lines] == [
        [f"job: step {step}/100 ({step} %)", f"loss {1 / step:.4g}"] for step in range(1, 5)
    ]


def test_eta_counts_steps_of_this_attempt(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("trainyard.train.progress.time.monotonic", lambda: clock[0])
    listener = Listener(node)
    control, state = TrainerControl(), TrainerState(global_step=50, max_steps=100)
    reports, args = callback(node, Rows()), arguments(tmp_path)
    reports.on_train_begin(args, state, control)
    estimates = []
    for step, seconds in [(51, 60.0), (52, 2.0), (53, 2.0), (54, 2.0)]:  # the first one compiles
        reports.on_step_begin(args, state, control)
        clock[0] += seconds
        state.global_step = step
        reports.on_step_end(args, state, control)
    assert listener.receive() == {"event": "train", "attempt": 1, "step": 50, "total": 100}
    for _ in range(4):
        event = listener.receive()
        assert event is not None
        estimates.append(event.get("eta_seconds"))
    assert estimates == [None, 2.0 * 48, 2.0 * 47, 2.0 * 46]
