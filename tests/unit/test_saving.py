"""Who hears of saves that were left out."""

import socket
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState

from tests.conftest import manifest
from trainyard.checkpoint.staging import Run, Tickets
from trainyard.train.checkpointing import _is_chosen
from trainyard.train.events import Events
from trainyard.train.saving import Config, Saving, Seat
from trainyard.train.work import Work


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ({}, True),
        ({"trainingArguments": {"max_steps": 10}}, True),
        ({"trainingArguments": {"save_steps": 1}}, False),
        ({"trainingArguments": {"save_strategy": "epoch"}}, False),
        ({"checkpoint": {"every": "1m"}}, False),
    ],
    ids=["nothing", "other arguments", "save_steps", "save_strategy", "checkpoint.every"],
)
def test_left_out_saves_are_news_where_the_user_asked_for_them(
    tmp_path: Path, spec: dict[str, Any], chosen: bool
) -> None:
    work = Work(
        manifest=manifest(**spec),
        arguments={},
        run_uri=str(tmp_path),
        attempt=1,
        staging=str(tmp_path),
        keep_last=1,
        strategy="ddp",
    )
    assert _is_chosen(work) == chosen
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "events"))
        listener.setblocking(False)
        config = Config(
            attempt=1,
            run=Run(str(tmp_path), None, None),
            seat=Seat(0, 1, 1, 0, 1),
            bell=tmp_path / "bell",
            tickets=Tickets(tmp_path),
            static=tmp_path,
            chosen=_is_chosen(work),
        )
        slots: Any = None
        saving = Saving(config, slots, Events(str(tmp_path / "events")), None, lambda _: False)
        saving._skip(TrainerState(global_step=3))
        assert saving.totals.skipped == 1, "it is counted all the same"
        if chosen:
            with pytest.raises(BlockingIOError):
                listener.recv(9999)
        else:
            assert b"saves left out so far: 1 (step 3)" in listener.recv(9999)
